// Finds where bytes of the new file occur in the old one.
#pragma once

#include <cstdint>

#include "match/huge_array.h"

namespace whittle {

/** Length of the common prefix of a[0, limit) and b[0, limit). */
size_t CommonPrefix(const uint8_t* a, const uint8_t* b, size_t limit);

/** A suffix array of a text with what makes searching it quick. Takes about 6 bytes per byte of text beside the text. */
class SuffixIndex {
 public:
  struct Match {
    size_t position;
    size_t length;
  };

  /** `seed_length` (4 to 8): Find reports no shorter matches. The text is borrowed; at most kMaxSuffixArrayText bytes. */
  SuffixIndex(const uint8_t* text, size_t size, size_t seed_length);

  /** Memory beside the text that an index of `size` bytes takes, and what is needed for a moment while it is built. */
  static uint64_t MemoryBytes(uint64_t size);

  /**
   * The longest match of pattern[0, available) up to a cap of some kilobytes; length 0 when none reaches the seed length.
   * Of several as long, one of those nearest to `expected` (of a bounded number that are looked at).
   */
  Match Find(const uint8_t* pattern, size_t available, int64_t expected) const;


 private:
  Match Nearest(const uint8_t* pattern, Match best, int64_t rank, int64_t expected) const;
  bool MayContain(const uint8_t* pattern) const;
  uint64_t SeedHash(const uint8_t* pattern) const;
  void BuildFilter();
  void BuildBuckets();

  const uint8_t* text_;
  size_t size_;
  size_t seed_length_;
  uint64_t seed_mask_;
  int filter_shift_;
  int bucket_bytes_;
  HugeArray<int32_t> suffixes_;
  HugeArray<uint64_t> filter_;   // one bit per hash of a seed that occurs
  HugeArray<int32_t> buckets_;  // first suffix that starts with at least these bytes
};

}  // namespace whittle
