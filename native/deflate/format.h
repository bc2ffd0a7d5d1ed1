// What RFC 1951 lays down of lengths, distances and prefix codes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace whittle::deflate {

/** Texts are at most so long: places in them are numbers of 32 bits. */
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 31;

constexpr uint32_t kShortestCopy = 3, kLongestCopy = 258, kFarthest = 32768;

constexpr int kLiteralSymbols = 286, kDistanceSymbols = 30, kRunSymbols = 19;
constexpr int kEndOfBlock = 256, kFirstLength = 257;
constexpr int kLongestCode = 15, kLongestRunCode = 7;

/** A symbol, and what is told behind it. */
struct Told {
  int symbol;
  uint32_t extra;
  int extra_bits;
};
Told LengthTold(uint32_t length);
Told DistanceTold(uint32_t distance);

/** A range of numbers that one symbol stands for: the least, and how many extra bits tell it. */
struct NumberRange {
  uint16_t base;
  uint8_t extra_bits;
};
/** By symbol, the first for kFirstLength. */
extern const NumberRange kLengths[kLiteralSymbols - kFirstLength];
extern const NumberRange kDistances[kDistanceSymbols];

/** The order in which lengths of the code for code lengths are sent. */
extern const uint8_t kRunOrder[kRunSymbols];
/** Symbols of that code from this on are runs, of so many at least; so many extra bits tell how many more. */
constexpr int kFirstRun = 16;
extern const NumberRange kRuns[3];

/** What block a stream has next, as it says in two bits. */
enum class BlockKind { kStored = 0, kFixed = 1, kDynamic = 2 };

}  // namespace whittle::deflate
