// Exposes the taking apart of brotli streams to JavaScript: brotliDecisions.
#include "brotli/encode_stream.h"
#include "brotli/format.h"
#include "common/napi.h"

namespace whittle {

namespace {

/** brotliDecisions(stream, text): Promise<Buffer>, empty when the stream cannot be told so. */
napi_value BrotliDecisions(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 2);
    const Bytes stream = GetBytes(env, arguments[0], "stream"), text = GetBytes(env, arguments[1], "text");
    if (text.size > brotli::kMaxTextBytes) throw ArgumentError("text is too large");
    auto decisions = std::make_shared<std::vector<uint8_t>>();
    const auto execute = [stream, text, decisions] { *decisions = brotli::FindDecisions(stream.data, stream.size, text.data, text.size); };
    const auto result = [decisions](napi_env result_env) { return MakeBuffer(result_env, decisions->data(), decisions->size()); };
    return RunFunction(env, "whittle:brotliDecisions", execute, result, arguments.values);
  });
}

}  // namespace

void RegisterBrotliDecisions(napi_env env, napi_value exports) { SetFunction(env, exports, "brotliDecisions", BrotliDecisions); }

}  // namespace whittle
