// Exposes the delta codec's encoder to JavaScript: class PatchEncoder.
#include "codec/encode.h"
#include "codec/profile_binding.h"
#include "common/napi.h"

namespace whittle {

namespace {

using codec::EncodeFile;
using codec::EncodeStats;
using codec::Encoder;
using codec::Op;

constexpr napi_type_tag kTag = {0x3be0970a1d5f4c22, 0x9e64f8d7a1c05b3e};
constexpr size_t kMaxOps = size_t{1} << 26;
constexpr int kMaxThreads = 64;

struct EncoderHandle {
  std::unique_ptr<Encoder> encoder;
  std::vector<EncodeFile> files;
  int threads = 1;
  bool busy = false;
  bool broken = false;
};

/** The encoder that a method was called on, open or closed, but idle. */
EncoderHandle* Idle(napi_env env, napi_value self) {
  auto* handle = UnwrapObject<EncoderHandle>(env, self, kTag);
  if (handle->busy) throw CodedError("EBUSY", "PatchEncoder is busy: wait for the promise of flush");
  return handle;
}

/** The idle encoder that a method was called on. */
EncoderHandle* Take(napi_env env, napi_value self) {
  EncoderHandle* handle = Idle(env, self);
  if (!handle->encoder) throw CodedError("ECANCELED", "PatchEncoder is closed");
  if (handle->broken) throw CodedError("ECANCELED", "PatchEncoder is used after an error");
  return handle;
}

napi_value Construct(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    RequireNew(env, info, "PatchEncoder");
    const Arguments arguments = GetArguments(env, info, 1);
    auto handle = std::make_unique<EncoderHandle>();
    handle->threads = static_cast<int>(GetInteger(env, GetProperty(env, arguments[0], "threads", "options"), "options.threads", 1, kMaxThreads));
    handle->encoder = codec::MakeEncoder(codec::GetProfile(env, GetProperty(env, arguments[0], "profile", "options")));
    WrapObject(env, arguments.self, kTag, std::move(handle));
    return arguments.self;
  });
}

/** Checks that ops ascend, do not overlap, and lie within target and sources. */
std::vector<Op> GetOps(const std::vector<double>& numbers, uint64_t target_size, uint64_t old_size) {
  if (numbers.size() % 3 != 0) throw ArgumentError("file.ops must be triples newPos, oldPos, length");
  std::vector<Op> ops;
  ops.reserve(numbers.size() / 3);
  uint64_t position = 0;
  for (size_t index = 0; index < numbers.size(); index += 3) {
    for (size_t part = 0; part < 3; part++) {
      const double number = numbers[index + part];
      if (!(number >= 0 && number <= static_cast<double>(kMaxSafeInteger)) || number != static_cast<double>(static_cast<uint64_t>(number))) {
        throw ArgumentError("file.ops must hold unsigned safe integers");
      }
    }
    const Op op{static_cast<uint64_t>(numbers[index]), static_cast<uint64_t>(numbers[index + 1]), static_cast<uint64_t>(numbers[index + 2])};
    if (op.new_position < position) throw ArgumentError("file.ops must ascend by newPos and not overlap");
    if (op.length == 0 || op.new_position + op.length > target_size || op.old_position + op.length > old_size) {
      throw ArgumentError("file.ops must lie within target and sources, and not be empty");
    }
    position = op.new_position + op.length;
    ops.push_back(op);
  }
  return ops;
}

napi_value Add(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    EncoderHandle* handle = Take(env, arguments.self);
    EncodeFile file;
    file.sources = GetContents(env, GetProperty(env, arguments[0], "sources", "file"), "file.sources");
    file.target = GetContent(env, GetProperty(env, arguments[0], "target", "file"), "file.target");
    uint64_t old_size = 0;
    for (const Content& source : file.sources) old_size += source.size;
    file.ops = GetOps(GetDoubles(env, GetProperty(env, arguments[0], "ops", "file"), "file.ops", 3 * kMaxOps), file.target.size, old_size);
    handle->files.push_back(std::move(file));
    return MakeUndefined(env);
  });
}

class FlushTask final : public Task {
 public:
  explicit FlushTask(EncoderHandle* handle) : handle_(handle) {
    files_.swap(handle->files);
    handle_->busy = true;
  }
  void Execute() override { streams_ = handle_->encoder->Segment(files_, handle_->threads, stats_); }
  void Finish(napi_env, bool failed) override {
    handle_->busy = false;
    handle_->broken = failed;
  }
  napi_value Result(napi_env env) override {
    napi_value result, stats;
    Check(env, napi_create_object(env, &result));
    Check(env, napi_create_object(env, &stats));
    const auto set = [&](const char* key, uint64_t value) { SetProperty(env, stats, key, MakeNumber(env, static_cast<double>(value))); };
    set("opBytes", stats_.op_bytes);
    set("residueBytes", stats_.residue_bytes);
    set("literalBytes", stats_.literal_bytes);
    set("ops", stats_.ops);
    set("copiedBytes", stats_.copied);
    set("uncoveredBytes", stats_.literal);
    SetProperty(env, result, "streams", MakeBuffer(env, streams_.data(), streams_.size()));
    SetProperty(env, result, "stats", stats);
    return result;
  }

 private:
  EncoderHandle* handle_;
  std::vector<EncodeFile> files_;
  std::vector<uint8_t> streams_;
  EncodeStats stats_;
};

napi_value Flush(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    EncoderHandle* handle = Take(env, arguments.self);
    return RunTask(env, "PatchEncoder.flush", std::make_unique<FlushTask>(handle), {arguments.self});
  });
}

napi_value Close(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    EncoderHandle* handle = Idle(env, arguments.self);
    handle->encoder.reset();
    handle->files.clear();
    return MakeUndefined(env);
  });
}

}  // namespace

void RegisterEncoder(napi_env env, napi_value exports) {
  DefineClass(env, exports, "PatchEncoder", Construct, {Method("add", Add), Method("flush", Flush), Method("close", Close)});
}

}  // namespace whittle
