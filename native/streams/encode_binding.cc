// Exposes the taking apart of compressed streams to JavaScript: brotliDecisions, deflateDecisions and deflateMakers.
#include <algorithm>
#include <memory>
#include <vector>

#include "brotli/encode_stream.h"
#include "brotli/format.h"
#include "common/napi.h"
#include "deflate/encode_stream.h"
#include "deflate/format.h"
#include "deflate/encode_makers.h"

namespace whittle {

namespace {

/** find(stream, text): Promise<Buffer>. */
template <auto Find>
napi_value FindOf(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 2);
    const Bytes stream = GetBytes(env, arguments[0], "stream"), text = GetBytes(env, arguments[1], "text");
    if (text.size > std::min(brotli::kMaxTextBytes, deflate::kMaxTextBytes)) throw ArgumentError("text is too large");
    auto found = std::make_shared<std::vector<uint8_t>>();
    const auto execute = [stream, text, found] { *found = Find(stream.data, stream.size, text.data, text.size); };
    const auto result = [found](napi_env result_env) { return MakeBuffer(result_env, found->data(), found->size()); };
    return RunFunction(env, "whittle:streamDecisions", execute, result, arguments.values);
  });
}

}  // namespace

void RegisterStreamDecisions(napi_env env, napi_value exports) {
  SetFunction(env, exports, "brotliDecisions", FindOf<brotli::FindDecisions>);
  SetFunction(env, exports, "deflateDecisions", FindOf<deflate::FindDecisions>);
  SetFunction(env, exports, "deflateMakers", FindOf<deflate::LikelyMakers>);
}

}  // namespace whittle
