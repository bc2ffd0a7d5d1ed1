// Exposes the delta codec's decoder to JavaScript: class PatchDecoder.
#include "codec/decode.h"
#include "codec/decoder_methods.h"
#include "codec/profile_binding.h"
#include "common/napi.h"

namespace whittle {

namespace {

using codec::Decoder;

constexpr napi_type_tag kTag = {0x8f4d1a5c20b94e07, 0xb1d3c76e5f2a4890};

struct DecoderHandle {
  static constexpr const char* kNextName = "PatchDecoder.next";

  napi_env env = nullptr;
  int64_t memory_bytes = 0;
  std::unique_ptr<Decoder> owned;
  bool busy = false;

  ~DecoderHandle() { Close(); }

  Decoder& decoder() { return *owned; }

  void Close() {
    if (!owned) return;
    owned.reset();
    int64_t total = 0;
    napi_adjust_external_memory(env, -memory_bytes, &total);
  }

  /** The decoder that a method was called on, open or closed, but idle. */
  static DecoderHandle* Idle(napi_env env, napi_value self) {
    auto* handle = UnwrapObject<DecoderHandle>(env, self, kTag);
    if (handle->busy) throw CodedError("EBUSY", "PatchDecoder is busy: wait for the promise of next");
    return handle;
  }

  /** The idle decoder that a method was called on. */
  static DecoderHandle* Take(napi_env env, napi_value self) {
    DecoderHandle* handle = Idle(env, self);
    if (!handle->owned) throw CodedError("ECANCELED", "PatchDecoder is closed");
    return handle;
  }
};

napi_value Construct(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    RequireNew(env, info, "PatchDecoder");
    const Arguments arguments = GetArguments(env, info, 1);
    const auto profile = codec::GetProfile(env, GetProperty(env, arguments[0], "profile", "options"));
    auto handle = std::make_unique<DecoderHandle>();
    handle->env = env;
    handle->owned = codec::MakeDecoder(profile);
    handle->memory_bytes = static_cast<int64_t>(codec::DecoderMemoryBytes(profile));
    int64_t total = 0;
    Check(env, napi_adjust_external_memory(env, handle->memory_bytes, &total));
    WrapObject(env, arguments.self, kTag, std::move(handle));
    return arguments.self;
  });
}

napi_value MemoryBytes(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    return MakeNumber(env, static_cast<double>(codec::DecoderMemoryBytes(codec::GetProfile(env, arguments[0]))));
  });
}

napi_value Close(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    DecoderHandle::Idle(env, arguments.self)->Close();
    return MakeUndefined(env);
  });
}

}  // namespace

void RegisterDecoder(napi_env env, napi_value exports) {
  std::vector<napi_property_descriptor> methods = codec::DecoderMethods<DecoderHandle>::All();
  methods.push_back(StaticMethod("memoryBytes", MemoryBytes));
  methods.push_back(Method("close", Close));
  DefineClass(env, exports, "PatchDecoder", Construct, methods);
}

}  // namespace whittle
