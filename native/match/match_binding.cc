// Exposes the matcher to JavaScript.
#include "common/napi.h"

namespace whittle {

void RegisterMatcher(napi_env, napi_value) {}

}  // namespace whittle
