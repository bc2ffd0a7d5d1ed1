// Where the text before a place goes on as the text there does. Both sides look the same way, so what is found is part of the
// format: depths, window and caps may not change without a new version.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "streams/common_length.h"

namespace whittle::brotli {

/** Matches are measured so far. */
constexpr uint32_t kLongestMatch = 1024;

struct Match {
  uint32_t length = 0;
  uint32_t distance = 0;
};

/** What is at a place: the longest match among the nearest, and the nearest of them all. */
struct Reach {
  Match longest;
  Match nearest;
};

/** Finds matches of a text, from any place that is not far before the last one that was asked for. */
class Matches {
 public:
  /** The text is borrowed. Takes the memory that MemoryBytes tells. */
  Matches(const uint8_t* text, size_t size);
  static size_t MemoryBytes(size_t size);

  /** The text at a place, 0 behind its end. */
  uint8_t At(size_t place) const { return place < size_ ? text_[place] : 0; }
  /** Length of the match that lies `distance` before a place, at most `limit`; 0 when there is nothing so far back. */
  uint32_t Length(size_t place, uint32_t distance, uint32_t limit) const {
    if (distance == 0 || distance > place || place >= size_) return 0;
    limit = static_cast<uint32_t>(std::min<size_t>(limit, size_ - place));
    return streams::CommonLength(text_ + place, text_ + place - distance, limit);
  }
  /** A quick look; nothing behind the end. */
  const Reach& ReachAt(size_t place);
  /** Up to kListed matches, each longer and farther than the one before; returns their number. */
  static constexpr int kListed = 16;
  int List(size_t place, uint32_t farthest, Match* found);
  /** The nearest match of at least `length`, no nearer than `from`; 0 when it is not found. A long look: all of them together are bounded. */
  uint32_t Search(size_t place, uint32_t length, uint32_t from, uint32_t farthest);

 private:
  static constexpr uint32_t kNone = 0xffffffffu;
  static constexpr uint32_t kHashed = 4;
  static constexpr size_t kRemembered = 4096;

  uint32_t HashAt(size_t place) const {
    const uint8_t* bytes = text_ + place;
    const uint32_t four = static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 | static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
    return (four * 0x9e3779b1u) >> (32 - hash_bits_);
  }
  /** Enters all places up to and with this one. */
  void EnterUpTo(size_t place);
  /** The place before with the same hash as an entered one, kNone when there is none within reach. */
  uint32_t Before(size_t place, size_t from) const {
    const uint32_t before = previous_[place & mask_];
    return before == kNone || from - before > reach_ ? kNone : before;
  }
  /** The nearest match of two or three bytes, of those nearby. */
  Match Short(size_t place) const;

  const uint8_t* text_;
  size_t size_;
  int hash_bits_;
  size_t mask_;
  size_t reach_;
  size_t entered_ = 0;
  uint64_t steps_left_;
  std::vector<uint32_t> heads_;
  std::vector<uint32_t> previous_;
  std::vector<Reach> reaches_;
  std::vector<uint32_t> reached_;
};

}  // namespace whittle::brotli
