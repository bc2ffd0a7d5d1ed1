// Where the text before a place goes on as the text there does, as an encoder of certain habits finds it. Both sides look the same
// way, so what is found is part of the format.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "deflate/format.h"
#include "deflate/habits.h"
#include "streams/common_length.h"

namespace whittle::deflate {

struct Match {
  uint32_t length = 0;
  uint32_t distance = 0;
};

/** What zlib's rules go by at a place: the longest match there, and the next place's where the first waits for a longer one and there is one. */
struct Outlook {
  Match here, next;
};

/** Finds matches of a text, from any place that is not far before the last one that was asked for. */
class Chains {
 public:
  /** The text is borrowed. Takes kMemoryBytes. */
  Chains(const uint8_t* text, size_t size, const Habits& habits);
  static constexpr size_t kMemoryBytes = ((size_t{1} << 16) + (size_t{1} << 16)) * sizeof(uint32_t);

  size_t size() const { return size_; }
  /** The text at a place, 0 behind its end. */
  uint8_t At(size_t place) const { return place < size_ ? text_[place] : 0; }
  /** Whether a copy of this length and distance, both at least 1, gives the text at a place. */
  bool Gives(size_t place, const Match& copy) const { return copy.distance <= place && copy.length <= size_ - place && Length(place, copy.distance, copy.length) == copy.length; }

  /** The first of the longest matches, none when there is none longer than `longer_than`, at least 2. */
  Match Find(size_t place, uint32_t longer_than);
  /** Looks at a place, and ahead of it. Of the place after it nothing is looked up again. */
  Outlook LookAhead(size_t place);
  /** Up to kListed matches, each longer and farther than the one before; returns their number. */
  static constexpr int kListed = 32;
  int List(size_t place, Match* found);
  /** The nearest match of at least `length` that is farther than `distance`; 0 when it is not found. */
  uint32_t FindFarther(size_t place, uint32_t length, uint32_t distance);
  /** Whether so much was looked at before a place that looks from there on are short. */
  bool Hurries(size_t place) const { return steps_ >= kFirstSteps + kSteps * place; }
  /** Says that places are behind, and how a copy has gone over the last of them. */
  void Pass(size_t place, uint32_t copied);

 private:
  static constexpr uint32_t kNone = 0xffffffffu;
  /** Places in the chains: the farthest that matches are, and as many again for places that are looked at ahead. */
  static constexpr size_t kMask = 2 * kFarthest - 1;
  /** Steps of all looks, for each byte of the text before the place and at first; beyond, looks are short. */
  static constexpr uint64_t kSteps = 48, kFirstSteps = uint64_t{1} << 20;
  static constexpr uint32_t kShortLook = 4;

  uint32_t Length(size_t place, uint32_t distance, uint32_t limit) const {
    return streams::CommonLength(text_ + place, text_ + place - distance, limit);
  }
  uint32_t HashAt(size_t place) const;
  /** Enters all places up to and with this one; false when it is too near to the end for that. */
  bool EnterUpTo(size_t place);
  /** The next place of a chain, kNone at its end. */
  uint32_t Before(uint32_t at, size_t place) const {
    const uint32_t before = previous_[at & kMask];
    return before == kNone || place - before > farthest_ || before < first_ ? kNone : before;
  }
  uint32_t Depth(size_t place, uint32_t depth) const { return Hurries(place) ? std::min(depth, kShortLook) : depth; }

  const uint8_t* text_;
  size_t size_;
  Habits habits_;
  Manner manner_;
  size_t hashed_;
  uint32_t farthest_;
  uint32_t first_;
  size_t entered_ = 0;
  uint64_t steps_ = 0;
  Match ahead_;
  size_t ahead_at_ = SIZE_MAX;
  std::vector<uint32_t> heads_;
  std::vector<uint32_t> previous_;
};

}  // namespace whittle::deflate
