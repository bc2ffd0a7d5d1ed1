// Finds where bytes of the new file occur in the old one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "match/huge_array.h"

namespace whittle {

/** Longest text that a SeedIndex takes: positions are uint32. */
constexpr uint64_t kMaxIndexedText = (uint64_t{1} << 31) - 64;

/** Length of the common prefix of a[0, limit) and b[0, limit). */
size_t CommonPrefix(const uint8_t* a, const uint8_t* b, size_t limit);

/**
 * The positions of a text by a hash of the few bytes that stand there. Of very many matches it does not find the longest, as a
 * suffix array would, but looks at those nearest to where one is expected. Nothing is lost by that: a search that goes on at the
 * next byte soon meets a rarer seed, and whoever follows that match extends it backwards. It is built in a tenth of the time.
 */
class SeedIndex {
 public:
  struct Match {
    size_t position;
    size_t length;
  };

  /** `seed_length` (4 to 8): Find reports no shorter matches. The text is borrowed; at most kMaxIndexedText bytes. The index does not depend on `threads`. */
  SeedIndex(const uint8_t* text, size_t size, size_t seed_length, int threads);

  /** Memory beside the text that an index of `size` bytes takes. */
  static uint64_t MemoryBytes(uint64_t size);

  /**
   * The longest match of pattern[0, available) up to a cap of some kilobytes among a bounded number of places, most of them those
   * nearest to `expected`; length 0 when none reaches the seed length. Of several as long the nearest.
   */
  Match Find(const uint8_t* pattern, size_t available, int64_t expected) const;

 private:
  Match Longest(const uint8_t* pattern, size_t cap, const uint32_t* places, size_t count, int64_t expected) const;
  uint64_t SeedHash(const uint8_t* pattern) const;
  template <typename Visit>
  void ForEachSeed(uint32_t low, uint32_t high, Visit visit) const;
  void Build(uint32_t low, uint32_t high, uint32_t first_slot);

  const uint8_t* text_;
  size_t size_;
  size_t seed_length_;
  uint64_t seed_mask_;
  int shift_;
  HugeArray<uint32_t> ends_;       // by hash: the slot after its last position
  HugeArray<uint32_t> positions_;  // by hash, ascending
};

}  // namespace whittle
