// Stretches of a file that are loaded, and a look at them from one end to the other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/old_content.h"

namespace whittle::codec {

/** A stretch of a file, and what is added to its offsets to make addresses. */
struct LoadedRange {
  uint64_t start = 0, end = 0, bias = 0;
};

/** The bytes of a stretch, read forwards, some of them at a time. The content is borrowed. */
class Window {
 public:
  /** How much is seen at once. */
  static constexpr size_t kAhead = 32;

  /** `end`: of the stretch. */
  Window(OldContent& content, uint64_t end) : content_(content), end_(end), bytes_(kChunk + kAhead) {}

  /** What is at an offset, `left` bytes of it before the end: at most kAhead, all of which are there to be read. */
  const uint8_t* At(uint64_t offset, size_t& left) {
    if (!filled_ || offset < from_ || offset >= from_ + kChunk) {
      filled_ = true;
      from_ = offset;
      content_.Fetch(static_cast<int64_t>(from_), bytes_.size(), bytes_.data());
    }
    left = offset < end_ ? static_cast<size_t>(std::min<uint64_t>(kAhead, end_ - offset)) : 0;
    return &bytes_[static_cast<size_t>(offset - from_)];
  }

 private:
  static constexpr size_t kChunk = 32 * 1024;

  OldContent& content_;
  uint64_t end_, from_ = 0;
  bool filled_ = false;
  std::vector<uint8_t> bytes_;
};

}  // namespace whittle::codec
