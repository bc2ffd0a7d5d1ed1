// Random access to content, with zeros around it.
#pragma once

#include <cstdint>
#include <vector>

#include "common/content.h"

namespace whittle::codec {

/** Old content with zeros around it. Throws CodedError BASIS_DAMAGED when it cannot be read. */
class OldContent {
 public:
  explicit OldContent(const std::vector<Content>& contents) : reader_(contents) {}
  uint64_t size() const { return reader_.size(); }
  /** Copies `size` bytes from `start`, which may be negative, to `destination`. */
  void Fetch(int64_t start, size_t size, uint8_t* destination);

 private:
  ContentReader reader_;
};

}  // namespace whittle::codec
