// The prefix codes of RFC 7932: read through a port, then used both ways.
#pragma once

#include <cstdint>
#include <vector>

#include "streams/canonical_code.h"
#include "streams/choices.h"

namespace whittle::brotli {

using streams::StreamError;

constexpr int kLongestCode = 15;

/** A canonical prefix code. */
class PrefixCode {
 public:
  PrefixCode() = default;
  /** Throws StreamError unless the lengths make a complete code, or all but one are 0 (its symbol then takes no bits). */
  explicit PrefixCode(std::vector<uint8_t> lengths);
  /** A code of one symbol, that takes no bits. */
  static PrefixCode Single(int symbol);

  /** Reads a symbol; `bits(1)` gives the next bit. */
  template <typename Bits>
  int Read(Bits&& bits) const {
    if (single_ >= 0) return single_;
    return streams::ReadCanonical(counts_, symbols_.data(), kLongestCode, bits);
  }

  /** The bits of a symbol, the first lowest, and their number. Throws StreamError when the symbol has no code. */
  uint32_t Bits(int symbol, int& count) const {
    if (single_ >= 0) {
      if (symbol != single_) throw StreamError("a symbol has no code");
      count = 0;
      return 0;
    }
    count = lengths_[symbol];
    if (count == 0) throw StreamError("a symbol has no code");
    return codes_[symbol];
  }

 private:
  int single_ = -1;
  uint16_t counts_[kLongestCode + 1] = {};
  std::vector<uint8_t> lengths_;
  std::vector<uint16_t> codes_;
  /** By code, from short to long. */
  std::vector<uint16_t> symbols_;
};

/** Reads the description of a code over symbols below `alphabet`; `bits(n)` gives the next n bits. */
template <typename Bits>
PrefixCode ReadPrefixCode(Bits&& bits, int alphabet);

namespace internal {

/** One to four symbols told by their numbers. */
template <typename Bits>
PrefixCode ReadSimpleCode(Bits&& bits, int alphabet) {
  int width = 0;
  while (1 << width < alphabet) width++;
  const int count = static_cast<int>(bits(2)) + 1;
  int symbols[4];
  for (int index = 0; index < count; index++) {
    symbols[index] = static_cast<int>(bits(width));
    if (symbols[index] >= alphabet) throw StreamError("a code has a symbol too many");
    for (int before = 0; before < index; before++) {
      if (symbols[before] == symbols[index]) throw StreamError("a code has a symbol twice");
    }
  }
  if (count == 1) return PrefixCode::Single(symbols[0]);
  static constexpr uint8_t kLengths[4][4] = {{1, 1}, {1, 2, 2}, {2, 2, 2, 2}, {1, 2, 3, 3}};
  const uint8_t* chosen = kLengths[count == 4 && bits(1) ? 3 : count - 2];
  std::vector<uint8_t> lengths(alphabet);
  for (int index = 0; index < count; index++) lengths[symbols[index]] = chosen[index];
  return PrefixCode(std::move(lengths));
}

/** The code that code lengths are told in. */
template <typename Bits>
PrefixCode ReadLengthCode(Bits&& bits, int skipped) {
  static constexpr uint8_t kOrder[18] = {1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::vector<uint8_t> lengths(18);
  int space = 32;
  for (int index = skipped; index < 18 && space > 0; index++) {
    // 00 is 0, 01 is 3, 10 is 4, 011 is 2, 0111 is 1, 1111 is 5: bits come lowest first.
    int length = static_cast<int>(bits(2));
    if (length == 0) continue;
    if (length == 3) length = bits(1) == 0 ? 2 : bits(1) == 0 ? 1 : 5;
    else length = length == 1 ? 4 : 3;
    lengths[kOrder[index]] = static_cast<uint8_t>(length);
    space -= 32 >> length;
  }
  return PrefixCode(std::move(lengths));
}

}  // namespace internal

template <typename Bits>
PrefixCode ReadPrefixCode(Bits&& bits, int alphabet) {
  const int skipped = static_cast<int>(bits(2));
  if (skipped == 1) return internal::ReadSimpleCode(bits, alphabet);
  const PrefixCode length_code = internal::ReadLengthCode(bits, skipped);
  std::vector<uint8_t> lengths(alphabet);
  int space = 1 << kLongestCode;
  uint8_t last = 8, repeated = 0;
  int run = 0;
  for (int symbol = 0; symbol < alphabet && space > 0;) {
    const int length = length_code.Read(bits);
    if (length <= kLongestCode) {
      lengths[symbol++] = static_cast<uint8_t>(length);
      run = 0;
      if (length == 0) continue;
      last = static_cast<uint8_t>(length);
      space -= 1 << (kLongestCode - length);
      continue;
    }
    // A repetition right behind one of the same makes it longer.
    const int extra = length - 14;
    const uint8_t value = length == 16 ? last : 0;
    if (value != repeated) run = 0;
    repeated = value;
    const int before = run;
    run = (run > 0 ? (run - 2) << extra : 0) + static_cast<int>(bits(extra)) + 3;
    if (run - before > alphabet - symbol) throw StreamError("a code repeats past its end");
    for (int count = before; count < run; count++) lengths[symbol++] = value;
    if (value > 0) space -= (run - before) << (kLongestCode - value);
  }
  return PrefixCode(std::move(lengths));
}

}  // namespace whittle::brotli
