// Exposes the taking apart of compressed streams to JavaScript: brotliDecisions and deflateDecisions.
#include <algorithm>
#include <memory>
#include <vector>

#include "brotli/encode_stream.h"
#include "brotli/format.h"
#include "common/napi.h"
#include "deflate/encode_stream.h"
#include "deflate/format.h"

namespace whittle {

namespace {

/** decisions(stream, text): Promise<Buffer>, empty when the stream cannot be told so. */
template <auto FindDecisions>
napi_value Decisions(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 2);
    const Bytes stream = GetBytes(env, arguments[0], "stream"), text = GetBytes(env, arguments[1], "text");
    if (text.size > std::min(brotli::kMaxTextBytes, deflate::kMaxTextBytes)) throw ArgumentError("text is too large");
    auto decisions = std::make_shared<std::vector<uint8_t>>();
    const auto execute = [stream, text, decisions] { *decisions = FindDecisions(stream.data, stream.size, text.data, text.size); };
    const auto result = [decisions](napi_env result_env) { return MakeBuffer(result_env, decisions->data(), decisions->size()); };
    return RunFunction(env, "whittle:streamDecisions", execute, result, arguments.values);
  });
}

}  // namespace

void RegisterStreamDecisions(napi_env env, napi_value exports) {
  SetFunction(env, exports, "brotliDecisions", Decisions<brotli::FindDecisions>);
  SetFunction(env, exports, "deflateDecisions", Decisions<deflate::FindDecisions>);
}

}  // namespace whittle
