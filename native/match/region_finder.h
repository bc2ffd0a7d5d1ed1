// For a slice of the target, the stretches of a large source that resemble it most.
#pragma once

#include <cstdint>
#include <vector>

#include "common/content.h"
#include "match/huge_array.h"

namespace whittle {

/** A stretch of the source. */
struct Region {
  uint64_t start;
  uint64_t length;
};

/** An index of sampled windows of the source, in a table of fixed size. */
class RegionFinder {
 public:
  /** Reads the whole source once. Both readers are borrowed. */
  RegionFinder(ContentReader& source, uint64_t table_bytes);

  /**
   * Stretches, ascending and without overlap, of at most `budget_bytes` in all: those that share most samples with
   * target bytes [from, to), and what follows `expected`, where the slice before left off.
   */
  std::vector<Region> Find(ContentReader& target, uint64_t from, uint64_t to, uint64_t expected, uint64_t budget_bytes);

 private:
  struct Entry {
    uint32_t tag;
    uint32_t granule;  // number + 1 of the granule that holds the window's end; 0 when empty
  };

  ContentReader& source_;
  int level_;
  int slot_shift_;
  uint64_t granule_bytes_;
  HugeArray<Entry> entries_;
};

}  // namespace whittle
