// Linux calls that Node lacks.
#include <errno.h>
#include <unistd.h>

#include "common/napi.h"

namespace whittle {

namespace {

/** syncfs(fd): writes back the whole filesystem that holds `fd`; rejects with the errno's name as code. */
napi_value SyncFs(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 1);
    const int fd = GetDescriptor(env, arguments[0], "fd");
    return RunFunction(env, "whittle:syncfs", [fd] {
      if (syncfs(fd) != 0) ThrowErrno(errno, "syncfs");
    });
  });
}

}  // namespace

void RegisterLinux(napi_env env, napi_value exports) { SetFunction(env, exports, "syncfs", SyncFs); }

}  // namespace whittle
