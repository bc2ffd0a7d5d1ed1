#include "codec/decode.h"

#include "codec/profile_decoder.h"

namespace whittle::codec {

std::unique_ptr<Decoder> MakeDecoder(ProfileName profile) {
  if (profile == ProfileName::kFast) return std::make_unique<ProfileDecoder<FastProfile, RangeDecoder>>();
  return std::make_unique<ProfileDecoder<SmallProfile, RangeDecoder>>();
}

size_t DecoderMemoryBytes(ProfileName profile) {
  return profile == ProfileName::kFast ? size_t{28} << 20 : size_t{46} << 20;
}

}  // namespace whittle::codec
