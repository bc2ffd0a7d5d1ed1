// Exposes the metering decoder to JavaScript: class PatchMeter.
#include "codec/decoder_methods.h"
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
  static constexpr const char* kNextName = "PatchMeter.next";

  std::unique_ptr<MeteringDecoder> metering;
  bool busy = false;

  codec::Decoder& decoder() { return metering->decoder(); }

  /** The idle meter that a method was called on. */
  static Meter* Take(napi_env env, napi_value self) {
    auto* meter = UnwrapObject<Meter>(env, self, kTag);
    if (meter->busy) throw CodedError("EBUSY", "PatchMeter is busy: wait for the promise of next");
    return meter;
  }
};

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

/** bits(): Float64Array of ops, residue, literals: bits of information read so far. */
napi_value BitsRead(napi_env env, napi_callback_info info) {
  return Guard(env, [&] {
    const Arguments arguments = GetArguments(env, info, 0);
    const MeteringDecoder::Bits bits = Meter::Take(env, arguments.self)->metering->bits();
    return MakeDoubles(env, {bits.ops, bits.residue, bits.literals});
  });
}

}  // namespace

void RegisterMeter(napi_env env, napi_value exports) {
  std::vector<napi_property_descriptor> methods = codec::DecoderMethods<Meter>::All();
  methods.push_back(Method("bits", BitsRead));
  DefineClass(env, exports, "PatchMeter", Construct, methods);
}

}  // namespace whittle
