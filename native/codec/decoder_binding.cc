// Exposes the delta codec's decoder to JavaScript: class PatchDecoder.
#include "codec/decode.h"
#include "codec/profile_binding.h"
#include "common/napi.h"

namespace whittle {

namespace {

using codec::Decoder;

constexpr napi_type_tag kTag = {0x8f4d1a5c20b94e07, 0xb1d3c76e5f2a4890};

struct DecoderHandle {
  napi_env env = nullptr;
  int64_t memory_bytes = 0;
  std::unique_ptr<Decoder> decoder;
  bool busy = false;

  ~DecoderHandle() { Close(); }

  void Close() {
    if (!decoder) return;
    decoder.reset();
    int64_t total = 0;
    napi_adjust_external_memory(env, -memory_bytes, &total);
  }
};

/** The idle decoder that a method was called on. */
DecoderHandle* Take(napi_env env, napi_value self) {
  auto* handle = UnwrapObject<DecoderHandle>(env, self, kTag);
  if (handle->busy) throw CodedError("EBUSY", "PatchDecoder is busy: wait for the promise of next");
  if (!handle->decoder) throw CodedError("ECANCELED", "PatchDecoder is closed");
  return handle;
}

napi_value Construct(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    RequireNew(env, info, "PatchDecoder");
    const Arguments arguments = GetArguments(env, info, 1);
    const auto profile = codec::GetProfile(env, GetProperty(env, arguments[0], "profile", "options"));
    auto handle = std::make_unique<DecoderHandle>();
    handle->env = env;
    handle->decoder = codec::MakeDecoder(profile);
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

napi_value Segment(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    DecoderHandle* handle = Take(env, arguments.self);
    const Bytes streams = GetBytes(env, arguments[0], "streams");
    handle->decoder->Segment(streams.data, streams.size);
    return MakeUndefined(env);
  });
}

napi_value Begin(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    DecoderHandle* handle = Take(env, arguments.self);
    const std::vector<Content> sources = GetContents(env, GetProperty(env, arguments[0], "sources", "file"), "file.sources");
    const uint64_t size = GetInteger(env, GetProperty(env, arguments[0], "sizeBytes", "file"), "file.sizeBytes", 0, kMaxSafeInteger);
    handle->decoder->Begin(sources, size);
    return MakeUndefined(env);
  });
}

class NextTask final : public Task {
 public:
  NextTask(DecoderHandle* handle, Bytes out) : handle_(handle), out_(out) { handle_->busy = true; }
  void Execute() override { written_ = handle_->decoder->Next(out_.data, out_.size); }
  void Finish(napi_env, bool) override { handle_->busy = false; }
  napi_value Result(napi_env env) override { return MakeNumber(env, static_cast<double>(written_)); }

 private:
  DecoderHandle* handle_;
  Bytes out_;
  size_t written_ = 0;
};

napi_value Next(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    DecoderHandle* handle = Take(env, arguments.self);
    const Bytes out = GetBytes(env, arguments[0], "out");
    return RunTask(env, "PatchDecoder.next", std::make_unique<NextTask>(handle, out), {arguments.self, arguments[0]});
  });
}

napi_value End(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    Take(env, arguments.self)->decoder->End();
    return MakeUndefined(env);
  });
}

napi_value Close(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    auto* handle = UnwrapObject<DecoderHandle>(env, arguments.self, kTag);
    if (handle->busy) throw CodedError("EBUSY", "PatchDecoder is busy: wait for the promise of next");
    handle->Close();
    return MakeUndefined(env);
  });
}

}  // namespace

void RegisterDecoder(napi_env env, napi_value exports) {
  DefineClass(env, exports, "PatchDecoder", Construct,
              {StaticMethod("memoryBytes", MemoryBytes), Method("segment", Segment), Method("begin", Begin), Method("next", Next),
               Method("end", End), Method("close", Close)});
}

}  // namespace whittle
