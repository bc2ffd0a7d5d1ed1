// The byte that came last in a context, and how surely it comes again.
#pragma once

#include <cstdint>

namespace whittle::codec {

struct ByteGuess {
  uint8_t value = 0, hits = 0;
  /** Learns what came: `hits` counts up to 15, and a value that was right often survives a miss. */
  void Update(uint8_t actual) {
    if (actual == value) hits += hits < 15;
    else if (hits > 3) hits /= 4;
    else *this = {actual, 0};
  }
};

}  // namespace whittle::codec
