// Prefix codes of RFC 1951: their bits, and what encoders make of the frequencies of symbols.
#pragma once

#include <cstdint>

#include "deflate/format.h"
#include "streams/canonical_code.h"
#include "streams/choices.h"

namespace whittle::deflate {

using streams::StreamError;

constexpr int kMostSymbols = 288;

/** A canonical prefix code, as it is written. */
class PrefixCode {
 public:
  /** Any lengths up to kLongestCode: bits of what is no code are of no use, but defined. */
  void Set(const uint8_t* lengths, int symbols);
  /** Bits of a symbol, the first lowest, and their number. Throws StreamError when it has none. */
  uint32_t Bits(int symbol, int& count) const {
    count = lengths_[symbol];
    if (count == 0) throw StreamError("a symbol has no code");
    return bits_[symbol];
  }

 private:
  uint8_t lengths_[kMostSymbols] = {};
  uint16_t bits_[kMostSymbols] = {};
};

/** A canonical prefix code, as it is read. */
class PrefixReader {
 public:
  /** Throws StreamError when the lengths are of more codes than there are. */
  PrefixReader(const uint8_t* lengths, int symbols);

  /** Reads a symbol; `bits(1)` gives the next bit. */
  template <typename Bits>
  int Read(Bits&& bits) const {
    return streams::ReadCanonical(counts_, symbols_, kLongestCode, bits);
  }

 private:
  uint16_t counts_[kLongestCode + 1] = {};
  /** By code, from short to long. */
  uint16_t symbols_[kMostSymbols] = {};
};

/**
 * Lengths of Huffman's code for symbols of these frequencies, at most `longest`, by the tree of zlib and GNU gzip: a heap by frequency, then by
 * depth. A code has two symbols at least. Frequencies add up to less than 2^32.
 */
void HeapLengths(const uint32_t* frequencies, int symbols, int longest, uint8_t* lengths);
/** The same as encoders make them who sort: of equally frequent symbols the first has the longer code. */
void SortedLengths(const uint32_t* frequencies, int symbols, int longest, uint8_t* lengths);

/** Lengths of the codes of blocks that send none. */
extern const struct FixedLengths {
  FixedLengths();
  uint8_t literals[kMostSymbols];
  uint8_t distances[kDistanceSymbols];
} kFixedLengths;

}  // namespace whittle::deflate
