// Fields of RISC-V instructions, those of two bytes included. A "half" is a word of whose upper two bytes nothing is said.
#pragma once

#include <cstdint>

#include "codec/arm_fields.h"

namespace whittle::codec {

/** Bytes of the instruction that begins with `word`. */
inline int RiscvBytes(uint32_t word) { return (word & 3) == 3 ? 4 : 2; }

inline bool IsJal(uint32_t word) { return (word & 0x7f) == 0x6f; }
inline int64_t JalDistance(uint32_t word) {
  return Signed((word >> 31) << 20 | ((word >> 12) & 0xff) << 12 | ((word >> 20) & 1) << 11 | ((word >> 21) & 0x3ff) << 1, 21);
}
inline uint32_t WithJalDistance(uint32_t word, uint32_t distance) {
  return (word & 0xfff) | (distance >> 12 & 0xff) << 12 | (distance >> 11 & 1) << 20 | (distance >> 1 & 0x3ff) << 21 | (distance >> 20 & 1) << 31;
}

/** Whether a word branches under a condition. */
inline bool IsRiscvBranch(uint32_t word) { return (word & 0x7f) == 0x63; }
inline int64_t RiscvBranchDistance(uint32_t word) {
  return Signed((word >> 31) << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 0x3f) << 5 | (word >> 8 & 15) << 1, 13);
}
inline uint32_t WithRiscvBranchDistance(uint32_t word, uint32_t distance) {
  return (word & 0x01fff07f) | (distance >> 11 & 1) << 7 | (distance >> 1 & 15) << 8 | (distance >> 5 & 0x3f) << 25 | (distance >> 12 & 1) << 31;
}

/** Whether a half is C.J, or in 32-bit code C.JAL. */
inline bool IsShortJump(uint32_t half, bool is_64) { return (half & 0xe003) == 0xa001 || (!is_64 && (half & 0xe003) == 0x2001); }
inline int64_t ShortJumpDistance(uint32_t half) {
  return Signed((half >> 12 & 1) << 11 | (half >> 8 & 1) << 10 | (half >> 9 & 3) << 8 | (half >> 6 & 1) << 7 | (half >> 7 & 1) << 6 | (half >> 2 & 1) << 5 |
                    (half >> 11 & 1) << 4 | (half >> 3 & 7) << 1,
                12);
}
inline uint32_t WithShortJumpDistance(uint32_t word, uint32_t distance) {
  return (word & 0xffffe003) | (distance >> 11 & 1) << 12 | (distance >> 10 & 1) << 8 | (distance >> 8 & 3) << 9 | (distance >> 7 & 1) << 6 |
         (distance >> 6 & 1) << 7 | (distance >> 5 & 1) << 2 | (distance >> 4 & 1) << 11 | (distance >> 1 & 7) << 3;
}

/** Whether a word is AUIPC: the upper 20 bits of a distance from its own place, to be completed by a signed 12-bit offset. */
inline bool IsAuipc(uint32_t word) { return (word & 0x7f) == 0x17; }
inline int64_t UpperDistance(uint32_t word) { return Signed(word & 0xfffff000, 32); }
/** With the upper half of a distance whose lower one is signed. */
inline uint32_t WithUpper(uint32_t word, uint32_t distance) { return (word & 0xfff) | ((distance + 0x800) & 0xfffff000); }

/** The register that a word sets, and the one that it adds an offset to. */
inline uint32_t RiscvTarget(uint32_t word) { return word >> 7 & 31; }
inline uint32_t RiscvBase(uint32_t word) { return word >> 15 & 31; }

/** Whether a word stores to memory: its offset is split then, and it sets no register. */
inline bool IsRiscvStore(uint32_t word) { return (word & 0x5f) == 0x03 && (word & 0x20) != 0; }

/** Whether a word adds a 12-bit offset to a register: ADDI, JALR, loads and stores. */
inline bool AddsLow12(uint32_t word) {
  const uint32_t opcode = word & 0x7f;
  return opcode == 0x03 || opcode == 0x07 || opcode == 0x23 || opcode == 0x27 || ((opcode == 0x13 || opcode == 0x67) && (word & 0x7000) == 0);
}
inline int64_t Low12(uint32_t word) { return Signed(IsRiscvStore(word) ? (word >> 25) << 5 | (word >> 7 & 31) : word >> 20, 12); }
inline uint32_t WithLow12(uint32_t word, uint32_t offset) {
  if (!IsRiscvStore(word)) return (word & 0xfffff) | offset << 20;
  return (word & 0x01fff07f) | (offset & 31) << 7 | (offset >> 5 & 0x7f) << 25;
}

/** The register that an instruction sets, as far as matters to what an AUIPC set before it; 0 when it is none. */
inline uint32_t RegisterSet(uint32_t word, bool is_64) {
  const uint32_t opcode = word & 0x7f, low = 8 + (word >> 2 & 7), mode = word >> 13 & 7;
  switch (word & 3) {
    case 3: return opcode == 0x63 || opcode == 0x23 || opcode == 0x27 || opcode == 0x07 ? 0 : RiscvTarget(word);
    case 0: return mode == 0 || mode == 2 || (mode == 3 && is_64) ? low : 0;
    case 1: return mode == 4 ? 8 + (word >> 7 & 7) : mode < 4 ? RiscvTarget(word) : 0;
    default: return mode == 0 || mode == 2 || mode == 4 || (mode == 3 && is_64) ? RiscvTarget(word) : 0;
  }
}

}  // namespace whittle::codec
