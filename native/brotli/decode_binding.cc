// Exposes the making again of brotli streams to JavaScript: rebuildBrotli, rebuildBrotliBytes.
#include "brotli/decode_stream.h"
#include "brotli/format.h"
#include "common/napi.h"

namespace whittle {

namespace {

/** rebuildBrotli(text, decisions, out): Promise<void>. */
napi_value RebuildBrotli(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 3);
    const Bytes text = GetBytes(env, arguments[0], "text"), decisions = GetBytes(env, arguments[1], "decisions"), out = GetBytes(env, arguments[2], "out");
    if (text.size > brotli::kMaxTextBytes) throw ArgumentError("text is too large");
    const auto execute = [text, decisions, out] { brotli::RebuildStream(text.data, text.size, decisions.data, decisions.size, out.data, out.size); };
    return RunFunction(env, "whittle:rebuildBrotli", execute, MakeUndefined, arguments.values);
  });
}

/** rebuildBrotliBytes(textBytes): number. */
napi_value RebuildBrotliBytes(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const uint64_t text_size = GetInteger(env, GetArguments(env, info, 1)[0], "textBytes", 0, brotli::kMaxTextBytes);
    return MakeNumber(env, static_cast<double>(brotli::RebuildMemoryBytes(text_size)));
  });
}

}  // namespace

void RegisterBrotliRebuilder(napi_env env, napi_value exports) {
  SetFunction(env, exports, "rebuildBrotli", RebuildBrotli);
  SetFunction(env, exports, "rebuildBrotliBytes", RebuildBrotliBytes);
}

}  // namespace whittle
