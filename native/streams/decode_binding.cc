// Exposes the making again of compressed streams to JavaScript: rebuildBrotli and rebuildDeflate, and what memory each takes.
#include <algorithm>

#include "brotli/decode_stream.h"
#include "brotli/format.h"
#include "common/napi.h"
#include "deflate/decode_stream.h"
#include "deflate/format.h"

namespace whittle {

namespace {

constexpr uint64_t kMostTextBytes = std::min(brotli::kMaxTextBytes, deflate::kMaxTextBytes);

/** rebuild(text, decisions, out): Promise<void>. */
template <auto RebuildStream>
napi_value Rebuild(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    const Arguments arguments = GetArguments(env, info, 3);
    const Bytes text = GetBytes(env, arguments[0], "text"), decisions = GetBytes(env, arguments[1], "decisions"), out = GetBytes(env, arguments[2], "out");
    if (text.size > kMostTextBytes) throw ArgumentError("text is too large");
    const auto execute = [text, decisions, out] { RebuildStream(text.data, text.size, decisions.data, decisions.size, out.data, out.size); };
    return RunFunction(env, "whittle:rebuildStream", execute, MakeUndefined, arguments.values);
  });
}

/** rebuildBytes(textBytes): number. */
template <auto RebuildMemoryBytes>
napi_value RebuildBytes(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const uint64_t text_size = GetInteger(env, GetArguments(env, info, 1)[0], "textBytes", 0, kMostTextBytes);
    return MakeNumber(env, static_cast<double>(RebuildMemoryBytes(text_size)));
  });
}

}  // namespace

void RegisterStreamRebuilders(napi_env env, napi_value exports) {
  SetFunction(env, exports, "rebuildBrotli", Rebuild<brotli::RebuildStream>);
  SetFunction(env, exports, "rebuildBrotliBytes", RebuildBytes<brotli::RebuildMemoryBytes>);
  SetFunction(env, exports, "rebuildDeflate", Rebuild<deflate::RebuildStream>);
  SetFunction(env, exports, "rebuildDeflateBytes", RebuildBytes<deflate::RebuildMemoryBytes>);
}

}  // namespace whittle
