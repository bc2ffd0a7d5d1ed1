// Finds where bytes of the new file occur in the old one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

  /** Memory beside the text that an index of `size` bytes takes at most. What is matched in how many slices depends on it. */
  static uint64_t MemoryBytes(uint64_t size);

  /**
   * The longest match of pattern[0, available) up to a cap of some kilobytes among a bounded number of places, most of them those
   * nearest to `expected`; length 0 when none reaches the seed length. Of several as long the nearest.
   */
  Match Find(const uint8_t* pattern, size_t available, int64_t expected) const;

 private:
  /** Hashes in a row: where the positions of the first begin, and how far from there those of each end, up to kFar. A quarter of what an end for each would take. */
  struct Group {
    static constexpr uint32_t kHashes = 16;
    static constexpr uint8_t kFar = 255;
    uint32_t start;
    uint8_t ends[kHashes];
  };
  struct Places {
    const uint32_t* first;
    const uint32_t* last;
  };
  class RegionSorter;

  Match Longest(const uint8_t* pattern, size_t cap, const uint32_t* places, size_t count, int64_t expected) const;
  uint32_t SeedHash(const uint8_t* pattern) const;
  Places PlacesOf(uint32_t hash) const;
  template <typename Visit>
  void ForEachSeed(size_t from, size_t to, Visit visit) const;
  void Build(int threads);
  std::vector<uint32_t> Scatter(int threads);

  const uint8_t* text_;
  size_t size_;
  size_t seed_length_;
  uint64_t seed_mask_;
  int shift_;
  int region_shift_;               // hashes that agree above it are in the same region
  HugeArray<Group> groups_;        // and one that ends the last
  HugeArray<uint32_t> positions_;  // by hash, ascending
};

}  // namespace whittle
