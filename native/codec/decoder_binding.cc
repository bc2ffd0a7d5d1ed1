// Exposes the delta codec's decoder to JavaScript.
#include "common/napi.h"

namespace whittle {

void RegisterDecoder(napi_env, napi_value) {}

}  // namespace whittle
