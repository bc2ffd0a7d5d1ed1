// whittle_server: what computing and explaining deltas needs besides.
#include "common/napi.h"

namespace whittle {
void RegisterMatcher(napi_env env, napi_value exports);
void RegisterEncoder(napi_env env, napi_value exports);
void RegisterMeter(napi_env env, napi_value exports);
}  // namespace whittle

NAPI_MODULE_INIT() {
  return whittle::Guard(env, [&]() -> napi_value {
    whittle::RegisterMatcher(env, exports);
    whittle::RegisterEncoder(env, exports);
    whittle::RegisterMeter(env, exports);
    return exports;
  });
}
