// One block of a deflate stream, taken apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "deflate/format.h"

namespace whittle::deflate {

/** Literals and a copy behind them; the last of a block may have none. */
struct Piece {
  uint32_t literals = 0;
  /** 0: none. */
  uint16_t copied = 0;
  uint16_t distance_less_one = 0;
};

/** A step of sending code lengths: 0 to 15 a length, 16 the one before again, 17 and 18 zeros; `more` goes into the extra bits. */
struct Run {
  uint8_t symbol = 0;
  uint8_t more = 0;
  int Count() const { return symbol < kFirstRun ? 1 : kRuns[symbol - kFirstRun].base + more; }
};

/** What a block says of its codes. */
struct CodeHead {
  /** Lengths that are sent: of literals and lengths, of distances, and of the code for lengths. All others are 0. */
  int literals = kFirstLength, distances = 1, run_lengths_sent = 4;
  uint8_t literal_lengths[kLiteralSymbols] = {};
  uint8_t distance_lengths[kDistanceSymbols] = {};
  uint8_t run_lengths[kRunSymbols] = {};
  int run_count = 0;
  Run runs[kLiteralSymbols + kDistanceSymbols];

  /** A length, those of distances behind those of literals. */
  uint8_t LengthAt(int at) const { return at < literals ? literal_lengths[at] : distance_lengths[at - literals]; }
  int total() const { return literals + distances; }

  /** The run that is sent at `at` when each is as long as it may be between `start` and `end`. */
  Run RunAt(int at, int start, int end) const {
    const int length = LengthAt(at), before = at > start ? LengthAt(at - 1) : -1;
    const int most = length == 0 ? 138 : 6;
    int count = 1;
    while (count < most && at + count < end && LengthAt(at + count) == length) count++;
    if (count < 3 || (length > 0 && length != before)) return {static_cast<uint8_t>(length), 0};
    if (length > 0) return {16, static_cast<uint8_t>(count - 3)};
    return count <= 10 ? Run{17, static_cast<uint8_t>(count - 3)} : Run{18, static_cast<uint8_t>(count - 11)};
  }
};

struct Block {
  BlockKind kind = BlockKind::kStored;
  bool is_last = false;
  /** Bytes of text in a stored block, and the bits before them that fill a byte. */
  uint32_t stored = 0;
  uint8_t filling = 0;
  /** Symbols before the end of the block, whether the text ends with them, and the copies among them with the literals. */
  uint64_t count = 0;
  bool is_to_end = false;
  std::vector<Piece> pieces;
  CodeHead head;
};

/** Pieces of one block: a stream that has more in one is not told. */
constexpr size_t kMostPieces = size_t{1} << 19;

}  // namespace whittle::deflate
