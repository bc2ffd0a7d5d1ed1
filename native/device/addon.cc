// whittle_device: what a device needs. Holds no encoder and no matcher.
#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#endif

#include "common/napi.h"

namespace whittle {
void RegisterLinux(napi_env env, napi_value exports);
void RegisterDecoder(napi_env env, napi_value exports);
void RegisterStreamRebuilders(napi_env env, napi_value exports);
}  // namespace whittle

NAPI_MODULE_INIT() {
  return whittle::Guard(env, [&]() -> napi_value {
#ifdef M_MMAP_THRESHOLD
    // Where it starts, to stay there. Left alone, the allocator raises it with each buffer that is freed, and keeps ever larger ones
    // in its heaps: 18 MiB at the peak of a pull of many files.
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
    whittle::RegisterLinux(env, exports);
    whittle::RegisterDecoder(env, exports);
    whittle::RegisterStreamRebuilders(env, exports);
    return exports;
  });
}
