// Matches of what is being coded with bytes that were coded before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "codec/large_allocator.h"
#include "codec/mixing.h"

namespace whittle::codec {

/** Finds where the recent past last looked like now. */
class MatchModel {
 public:
  /** From here on a match is trusted alone, and longer ones are not looked for. */
  static constexpr uint32_t kLong = 32;

  /** Of bytes that are appended many at once, each `sparse`th (a power of two) can be found again. */
  MatchModel(int history_bits, int head_bits, uint32_t sparse)
      : history_(size_t{1} << history_bits), mask_((1u << history_bits) - 1), heads_(size_t{1} << head_bits), head_shift_(32 - head_bits), sparse_mask_(sparse - 1) {}

  /** Forgets the current match: what follows does not follow what came before. */
  void Break() {
    length_ = 0;
    pointer_ = 0;
  }

  bool expects() const { return pointer_ != 0; }
  uint8_t expected() const { return history_[pointer_ & mask_]; }
  /** Bytes that the match has held for; 0 while recovering from a miss. */
  uint32_t length() const { return length_; }
  uint32_t misses() const { return misses_; }

  /** Appends a byte that no match is wanted for. */
  void Insert(uint8_t byte) {
    Put(byte);
    Head& head = heads_[HeadIndex()];
    candidate_ = head.last == Last() ? head.position : 0;
    head = {size_, Last()};
  }

  /** Appends `size` bytes, `byte(index)`, after which no match is wanted but after the last: only each `sparse`th place can be found again. */
  template <class Byte>
  void Insert(size_t size, const Byte& byte) {
    if (size == 0) return;
    for (size_t index = 0; index + 1 < size; index++) {
      Put(byte(index));
      if ((size_ & sparse_mask_) == 0) heads_[HeadIndex()] = {size_, Last()};
    }
    Insert(byte(size - 1));
  }

  /** Whether a match of kLong bytes goes on for kLong more, `bytes`. */
  bool GoesOn(const uint8_t* bytes) const {
    const uint32_t distance = (size_ - pointer_) & mask_;
    for (uint32_t index = 0; index < kLong; index++) {
      const uint8_t expected = distance != 0 && index >= distance ? bytes[index - distance] : history_[(pointer_ + index) & mask_];
      if (bytes[index] != expected) return false;
    }
    return true;
  }

  /** Appends the kLong bytes that the match expects, and writes them. */
  void GoOn(uint8_t* bytes) {
    for (uint32_t index = 0; index < kLong; index++) {
      bytes[index] = history_[pointer_++ & mask_];
      Put(bytes[index]);
      if ((size_ & sparse_mask_) == 0) heads_[HeadIndex()] = {size_, Last()};
    }
    length_ = std::min<uint32_t>(length_ + kLong, 65535);
    candidate_ = 0;
  }

  /** Appends a byte and moves the match on. */
  void Append(uint8_t byte) {
    if (pointer_ != 0) {
      if (expected() == byte) {
        if (length_ < 65535) length_++;
        pointer_++;
      } else {
        length_ = 0;
        misses_ = misses_ * 2 + 1;
        pointer_ = (misses_ & 255) == 255 ? 0 : pointer_ + 1;
      }
    }
    if (length_ == 0) {
      Insert(byte);
      Look();
    } else {
      Put(byte);
      heads_[HeadIndex()] = {size_, Last()};
      candidate_ = 0;
    }
  }

  /** Takes up the match that the last bytes suggest, if they suggest one. */
  void Look() {
    if (candidate_ == 0 || size_ - candidate_ >= mask_) return;
    uint32_t length = 0;
    while (length < kLong && candidate_ > length && history_[(candidate_ - 1 - length) & mask_] == history_[(size_ - 1 - length) & mask_]) length++;
    if (length < 5) return;
    length_ = length;
    pointer_ = candidate_;
    misses_ = 0;
  }

 private:
  /** Where the bytes that a hash is of came last, and the last four of them: what merely has the same hash is told without a look at the history, which is in no cache. */
  struct Head {
    uint32_t position, last;
  };

  void Put(uint8_t byte) {
    history_[size_++ & mask_] = byte;
    recent_ = recent_ << 8 | byte;
  }
  uint32_t Last() const { return static_cast<uint32_t>(recent_); }
  size_t HeadIndex() const { return Hash(static_cast<uint32_t>(recent_), static_cast<uint32_t>(recent_ >> 32) & 0xff) >> head_shift_; }

  LargeVector<uint8_t> history_;
  uint32_t mask_;
  LargeVector<Head> heads_;
  int head_shift_;
  uint32_t sparse_mask_;
  uint32_t size_ = 1;  // position 0 means none
  uint32_t pointer_ = 0, length_ = 0, misses_ = 0;
  uint32_t candidate_ = 0;  // where the last bytes were before, four of them for sure
  uint64_t recent_ = 0;
};

}  // namespace whittle::codec
