// whittle_device: what a device needs. Holds no encoder and no matcher.
#include "common/napi.h"

namespace whittle {
void RegisterLinux(napi_env env, napi_value exports);
void RegisterDecoder(napi_env env, napi_value exports);
}  // namespace whittle

NAPI_MODULE_INIT() {
  return whittle::Guard(env, [&]() -> napi_value {
    whittle::RegisterLinux(env, exports);
    whittle::RegisterDecoder(env, exports);
    return exports;
  });
}
