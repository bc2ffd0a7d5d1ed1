// What an expected byte says of the bits to come.
#pragma once

#include <cstdint>

#include "codec/mixing.h"

namespace whittle::codec {

/** A prediction of the next bit from an expected byte, as long as the bits so far agree with it. */
struct ExpectedByte {
  AdaptiveBit* state;
  uint32_t expected;
  bool agrees;
  ExpectedByte(AdaptiveBit* trust, uint32_t byte, bool is_possible, uint32_t node, int base)
      : state(trust), expected(byte), agrees(is_possible && (byte | 256) >> (base + 4) == node) {}
  int Bit(int place) const { return static_cast<int>(expected >> place) & 1; }
  int16_t Input(int place) const {
    if (!agrees) return 0;
    const int stretched = Stretch(state->probability());
    return static_cast<int16_t>(Bit(place) ? stretched : -stretched);
  }
  void Update(int place, int bit) {
    if (!agrees) return;
    agrees = bit == Bit(place);
    state->Update(agrees, 250);
  }
};

}  // namespace whittle::codec
