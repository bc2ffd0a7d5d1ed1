// Where in its instruction each byte of old code stands: what changes in one instruction changes in others like it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "codec/code_ranges.h"
#include "codec/x86_code.h"

namespace whittle::codec {

/** Follows the instructions of blocks of old code, of those kinds whose instructions are not words of four bytes. */
class CodePlaces {
 public:
  static constexpr size_t kBlockBytes = 32;
  /** So many bytes after a block are told of too. */
  static constexpr size_t kAhead = 2;
  /** So many bytes before a block are read, and one more at an odd place, to know where in an instruction it begins. */
  static constexpr size_t kBefore = 64;
  /** Places are below this. Those of Thumb come after those of x86. */
  static constexpr uint32_t kThumb = X86Code::kPlaces, kRiscv = kThumb + 6, kPlaces = kRiscv + 6;

  /** Starts a stretch of old bytes that are `kind`. */
  void Begin(CodeKind kind) {
    kind_ = kind;
    block_ = end_ = nullptr;
  }

  /** Whether places are told at all. */
  bool Tell() const { return kind_ == CodeKind::kThumb || kind_ == CodeKind::kRiscv || IsX86(kind_); }

  /** Tells of a block's bytes, kBlockBytes at most, of which the first is to be at `position`. */
  void Follow(const uint8_t* block, size_t size, uint64_t position) {
    block_ = block;
    if (kind_ == CodeKind::kThumb) FollowThumb(size, position);
    else if (kind_ == CodeKind::kRiscv) FollowRiscv(size, position);
    else if (IsX86(kind_)) FollowX86(size);
    end_ = block + size;
  }

  /** What a byte is in its instruction. */
  uint32_t Place(const uint8_t* byte) const { return places_[static_cast<size_t>(byte - block_)]; }
  /** That, and of Thumb the bytes that say what the instruction is. */
  uint32_t Field(const uint8_t* byte) const { return fields_[static_cast<size_t>(byte - block_)]; }

 private:
  void Put(size_t index, uint32_t place, uint32_t field) {
    places_[index] = static_cast<uint8_t>(place);
    fields_[index] = field;
  }

  void FollowX86(size_t size) {
    // Where the block before was followed too, it is known where its end is.
    if (block_ != end_) {
      x86_.Begin(kind_ == CodeKind::kX86Long);
      x86_.Step(block_ - kBefore, kBefore);
    }
    for (size_t index = 0; index < size; index++) StepX86(x86_, index);
    X86Code ahead = x86_;
    for (size_t index = size; index < size + kAhead; index++) StepX86(ahead, index);
  }

  void StepX86(X86Code& code, size_t index) {
    Put(index, code.place(), code.place());
    code.Step(block_[index]);
  }

  /** Halves of 16 bits; one whose highest five bits are 29 or more is followed by another. */
  void FollowThumb(size_t size, uint64_t position) {
    uint32_t first = 0;
    const uint8_t* const end = block_ + size + kAhead;
    for (const uint8_t* half = block_ - kBefore - (position & 1); half < end; half += 2) {
      const uint32_t high = half[1], begun = first;
      const bool is_long = begun == 0 && high >= 0xe8;
      first = is_long ? high : 0;
      if (half + 2 <= block_) continue;
      const uint32_t place = kThumb + (begun != 0 ? 4 : is_long ? 2 : 0);
      if (half >= block_) Put(static_cast<size_t>(half - block_), place, place << 8 | high);
      if (half + 1 < end) Put(static_cast<size_t>(half + 1 - block_), place + 1, (place + 1) << 8 | begun);
    }
  }

  /** Halves of 16 bits; one whose two lowest bits are set is followed by another. */
  void FollowRiscv(size_t size, uint64_t position) {
    const uint8_t* const end = block_ + size + kAhead;
    const uint8_t* half = block_ - kBefore - (position & 1);
    while (half < end) {
      const size_t bytes = (half[0] & 3) == 3 ? 4 : 2;
      const uint32_t place = kRiscv + (bytes == 4 ? 2 : 0);
      for (size_t index = 0; index < bytes; index++) {
        if (half + index < block_ || half + index >= end) continue;
        const uint32_t told = bytes == 2 ? (index == 0 ? half[1] : half[0] & 3u) : index == 0 ? half[1] & 0x70u : half[0] | (half[1] & 0x70u) << 8;
        Put(static_cast<size_t>(half + index - block_), place + static_cast<uint32_t>(index), (place + static_cast<uint32_t>(index)) << 16 | told);
      }
      half += bytes;
    }
  }

  CodeKind kind_ = CodeKind::kNone;
  const uint8_t* block_ = nullptr;
  const uint8_t* end_ = nullptr;
  X86Code x86_;
  std::array<uint8_t, kBlockBytes + kAhead> places_{};
  std::array<uint32_t, kBlockBytes + kAhead> fields_{};
};

}  // namespace whittle::codec
