// Canonical prefix codes, as RFC 1951 (section 3.2.2) and RFC 7932 have them.
#pragma once

#include <cstdint>

#include "streams/choices.h"

namespace whittle::streams {

/**
 * Reads a symbol of a code of which `counts[n]` words have n bits, up to `longest`, and whose `symbols` are in the order of their words, from short to
 * long; `bits(1)` gives the next bit. Throws StreamError when no symbol has what is read.
 */
template <typename Bits>
int ReadCanonical(const uint16_t* counts, const uint16_t* symbols, int longest, Bits&& bits) {
  int code = 0, first = 0, index = 0;
  for (int length = 1; length <= longest; length++) {
    code |= static_cast<int>(bits(1));
    const int count = counts[length];
    if (code - first < count) return symbols[index + code - first];
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  throw StreamError("no symbol has this code");
}

}  // namespace whittle::streams
