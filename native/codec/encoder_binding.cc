// Exposes the delta codec's encoder to JavaScript.
#include "common/napi.h"

namespace whittle {

void RegisterEncoder(napi_env, napi_value) {}

}  // namespace whittle
