// Exposes the metering decoder to JavaScript: class PatchMeter.
#include "codec/profile_binding.h"
#include "common/napi.h"
#include "meter/metering_decoder.h"

namespace whittle {

namespace {

using codec::MeteringDecoder;

constexpr napi_type_tag kTag = {0x51c6e0fb7a3d4429, 0xa40d8b16e9725c31};

std::unique_ptr<MeteringDecoder> MakeMeteringDecoder(codec::ProfileName profile) {
  if (profile == codec::ProfileName::kFast) return std::make_unique<codec::ProfileMeteringDecoder<codec::FastProfile>>();
  return std::make_unique<codec::ProfileMeteringDecoder<codec::SmallProfile>>();
}

struct Meter {
  std::unique_ptr<MeteringDecoder> metering;
  bool busy = false;
};

/** The idle meter that a method was called on. */
Meter* Take(napi_env env, napi_value self) {
  auto* meter = UnwrapObject<Meter>(env, self, kTag);
  if (meter->busy) throw CodedError("EBUSY", "PatchMeter is busy: wait for the promise of next");
  return meter;
}

napi_value Construct(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    RequireNew(env, info, "PatchMeter");
    const Arguments arguments = GetArguments(env, info, 1);
    const auto profile = codec::GetProfile(env, GetProperty(env, arguments[0], "profile", "options"));
    auto meter = std::make_unique<Meter>();
    meter->metering = MakeMeteringDecoder(profile);
    WrapObject(env, arguments.self, kTag, std::move(meter));
    return arguments.self;
  });
}

napi_value Segment(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    Meter* meter = Take(env, arguments.self);
    const Bytes streams = GetBytes(env, arguments[0], "streams");
    meter->metering->decoder().Segment(streams.data, streams.size);
    return MakeUndefined(env);
  });
}

napi_value Begin(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    Meter* meter = Take(env, arguments.self);
    const std::vector<Content> sources = GetContents(env, GetProperty(env, arguments[0], "sources", "file"), "file.sources");
    const uint64_t size = GetInteger(env, GetProperty(env, arguments[0], "sizeBytes", "file"), "file.sizeBytes", 0, kMaxSafeInteger);
    meter->metering->decoder().Begin(sources, size);
    return MakeUndefined(env);
  });
}

class NextTask final : public Task {
 public:
  NextTask(Meter* meter, Bytes out) : meter_(meter), out_(out) { meter_->busy = true; }
  void Execute() override { written_ = meter_->metering->decoder().Next(out_.data, out_.size); }
  void Finish(napi_env, bool) override { meter_->busy = false; }
  napi_value Result(napi_env env) override { return MakeNumber(env, static_cast<double>(written_)); }

 private:
  Meter* meter_;
  Bytes out_;
  size_t written_ = 0;
};

napi_value Next(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 1);
    Meter* meter = Take(env, arguments.self);
    const Bytes out = GetBytes(env, arguments[0], "out");
    return RunTask(env, "PatchMeter.next", std::make_unique<NextTask>(meter, out), {arguments.self, arguments[0]});
  });
}

napi_value End(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    Take(env, arguments.self)->metering->decoder().End();
    return MakeUndefined(env);
  });
}

/** bits(): Float64Array of ops, residue, literals: bits of information read so far. */
napi_value BitsRead(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    const MeteringDecoder::Bits bits = Take(env, arguments.self)->metering->bits();
    return MakeDoubles(env, {bits.ops, bits.residue, bits.literals});
  });
}

}  // namespace

void RegisterMeter(napi_env env, napi_value exports) {
  DefineClass(env, exports, "PatchMeter", Construct,
              {Method("segment", Segment), Method("begin", Begin), Method("next", Next), Method("end", End), Method("bits", BitsRead)});
}

}  // namespace whittle
