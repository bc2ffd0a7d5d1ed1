// Where in an instruction of RISC-V the next byte stands, by the bytes before it: instructions are of two bytes or of four,
// which the first of them says, and tell what they are from their first byte on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/mixing.h"

namespace whittle::codec {

/** Reads instructions as far as it takes to know where each ends. Any bytes will do; started amid one, it is in step again after a few. */
class RiscvCode {
 public:
  /** Starts over. */
  void Begin() { *this = RiscvCode(); }

  /** Takes the next byte. */
  void Step(uint8_t byte) {
    so_far_ |= static_cast<uint32_t>(byte) << (8 * count_);
    count_++;
    if (count_ < ((so_far_ & 3) == 3 ? 4u : 2u)) return;
    before_last_ = last_;
    last_ = so_far_;
    so_far_ = count_ = 0;
  }

  /** Takes the next bytes. */
  void Step(const uint8_t* bytes, size_t size) {
    for (size_t index = 0; index < size; index++) Step(bytes[index]);
  }

  /** Sets of a mixer's weights: first bytes, second ones of two by how they begin, and the others of four by their opcode. */
  static constexpr size_t kVariants = 4 + 3 * 32;
  /** That of the next byte. */
  size_t Variant() const {
    if (count_ == 0) return 0;
    return (so_far_ & 3) != 3 ? 1 + (so_far_ & 3) : 4 + (count_ - 1) * 32 + (so_far_ >> 2 & 31);
  }

  /** How many bytes the instruction at hand has left; 0 where the next byte begins one. */
  size_t Left() const { return count_ == 0 ? 0 : ((so_far_ & 3) == 3 ? 4 : 2) - count_; }

  /** Four contexts for the next byte: what the instruction is so far, with what those before it do. */
  void Contexts(uint32_t* hashes) const {
    const uint32_t so_far = so_far_ | count_ << 24, operation = Operation(last_);
    hashes[0] = Hash(so_far, 0x200 | operation << 12);
    hashes[1] = Hash(so_far, 0x900);
    hashes[2] = Hash(so_far, last_);
    hashes[3] = Hash(so_far, Hash(operation << 15 | Operation(before_last_), 0x500));
  }

 private:
  /** What an instruction does, and, of four bytes, to which register. */
  static uint32_t Operation(uint32_t word) { return (word & 3) == 3 ? word & 0x7fff : (word & 3) | (word >> 13 & 7) << 2; }

  uint32_t so_far_ = 0, count_ = 0;  // of the instruction at hand
  uint32_t last_ = 0, before_last_ = 0;
};

/**
 * Makes calls, and addresses in two halves that stand together, count from the file's start, not from their own place: what leads to
 * one place is the same everywhere then. Or, with `undo`, from their place again. `code` begins with an instruction, at `position`.
 */
void CountFromStart(uint8_t* code, size_t size, uint64_t position, bool undo);

}  // namespace whittle::codec
