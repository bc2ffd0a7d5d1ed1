// A decoder that also tells what each stream has cost. For accounts of a delta, on the server.
#pragma once

#include <cmath>
#include <vector>

#include "codec/profile_decoder.h"

namespace whittle::codec {

/** Reads bits as RangeDecoder does and adds up what they cost: -log2 of the probability that each bit had. */
class MeteringRangeDecoder : public RangeDecoder {
 public:
  int Code(int, uint32_t probability) {
    const int bit = RangeDecoder::Code(0, probability);
    bits_ += Costs()[bit ? probability : 65536 - probability];
    return bit;
  }

  uint32_t CodeEven(uint32_t, int bits) {
    bits_ += bits;
    return RangeDecoder::CodeEven(0, bits);
  }

  /** Bits of information read since the coder was made, over all streams. */
  double bits() const { return bits_; }

 private:
  /** Cost in bits of what has the probability index / 65536. Floating point: an account may differ in its last place between machines. */
  static const std::vector<double>& Costs() {
    static const std::vector<double> costs = [] {
      std::vector<double> made(65537);
      for (size_t index = 1; index < made.size(); index++) made[index] = 16 - std::log2(static_cast<double>(index));
      return made;
    }();
    return costs;
  }

  double bits_ = 0;
};

/** A Decoder with the cost of each of its streams. */
class MeteringDecoder {
 public:
  struct Bits {
    double ops, residue, literals;
  };
  virtual ~MeteringDecoder() = default;
  virtual Decoder& decoder() = 0;
  /** Bits of information read so far. */
  virtual Bits bits() const = 0;
};

template <class Profile>
class ProfileMeteringDecoder final : public MeteringDecoder, private ProfileDecoder<Profile, MeteringRangeDecoder> {
 public:
  Decoder& decoder() override { return *this; }
  Bits bits() const override { return {this->op_coder_.bits(), this->residue_coder_.bits(), this->literal_coder_.bits()}; }
};

}  // namespace whittle::codec
