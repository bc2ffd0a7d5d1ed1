// What tells the choices of a compressed stream's encoder, whichever its format: bits and symbols that are foretold, and the steps
// of lengths that foretell them. Written once over the coder, as the models of native/codec are.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "codec/mixing.h"
#include "codec/range_coder.h"

namespace whittle::streams {

/** What is no stream of its format, or none of the text that it is said to hold. */
struct StreamError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** A bit that several contexts foretell. */
class MixedBit {
 public:
  static constexpr int kSets = 64;

  template <class Coder, size_t count>
  int Code(Coder& coder, int bit, const std::array<uint32_t, count>& contexts, size_t set) {
    static_assert(count <= codec::Mixer::kInputs);
    codec::Mixer::Inputs inputs;
    codec::AdaptiveBit* states[count];
    for (size_t index = 0; index < count; index++) {
      states[index] = &states_[codec::Hash(contexts[index], static_cast<uint32_t>(index)) >> (32 - kBits)];
      inputs.values[index] = static_cast<int16_t>(codec::Stretch(states[index]->probability()));
    }
    codec::Mixer::Inputs& weights = mixer_.Weights(set);
    const int mixed = codec::Mixer::Mix(inputs, weights);
    bit = coder.Code(bit, codec::Squash(mixed));
    codec::Mixer::Update(inputs, weights, mixed, bit, 2);
    for (codec::AdaptiveBit* state : states) state->Update(bit, 250);
    return bit;
  }

 private:
  static constexpr int kBits = 15;

  std::vector<codec::AdaptiveBit> states_ = std::vector<codec::AdaptiveBit>(size_t{1} << kBits);
  codec::Mixer mixer_{kSets, codec::Mixer::kInputs, 5734};
};

/** A symbol of a few bits, whose bits each have a probability of their own. */
template <int bits>
class Symbol {
 public:
  template <class Coder>
  int Code(Coder& coder, int symbol) {
    int node = 1;
    for (int bit = bits - 1; bit >= 0; bit--) node = node << 1 | codec::CodeAdaptive(coder, states_[node], symbol >> bit & 1, 250);
    return node - (1 << bits);
  }

 private:
  codec::AdaptiveBit states_[size_t{1} << bits];
};

/** `count` bits of which nothing is known. */
template <class Coder>
uint32_t CodeBits(Coder& coder, uint32_t bits, int count) {
  uint32_t result = 0;
  for (int done = 0; done < count; done += 8) {
    const int some = std::min(8, count - done);
    result |= coder.CodeEven(bits >> done & ((1u << some) - 1), some) << done;
  }
  return result;
}

/** Lengths in eighteen steps, and numbers of bits: what contexts are made of. */
inline uint32_t Step(int64_t length) {
  if (length < 12) return static_cast<uint32_t>(std::max<int64_t>(length, 0));
  return length < 16 ? 12 : length < 24 ? 13 : length < 32 ? 14 : length < 64 ? 15 : length < 128 ? 16 : 17;
}
inline uint32_t BitLength(uint32_t number) { return number == 0 ? 0 : 32 - static_cast<uint32_t>(__builtin_clz(number)); }
/** A small signed number, from 0 to 16. */
inline uint32_t Near(int64_t number) { return static_cast<uint32_t>(std::clamp<int64_t>(number, -4, 12) + 4); }

}  // namespace whittle::streams
