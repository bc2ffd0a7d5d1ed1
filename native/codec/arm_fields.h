// Fields of ARM and AArch64 instructions.
#pragma once

#include <cstdint>

namespace whittle::codec {

/** The lowest `bits` of a word as a signed number. */
inline int64_t Signed(uint32_t word, int bits) { return static_cast<int32_t>(word << (32 - bits)) >> (32 - bits); }

/** Whether a word is a Thumb-2 BL: 11110 S imm10 in its lower half, 11 J1 1 J2 imm11 in its upper one. */
inline bool IsThumbCall(uint32_t word) { return (word & 0xc000f800) == 0xc000f000 && (word & 0x10000000) != 0; }

inline int64_t ThumbDistance(uint32_t word) {
  const uint32_t sign = (word >> 10) & 1;
  const uint32_t i1 = ~((word >> 29) ^ sign) & 1, i2 = ~((word >> 27) ^ sign) & 1;
  return Signed(sign << 24 | i1 << 23 | i2 << 22 | (word & 0x3ff) << 12 | ((word >> 16) & 0x7ff) << 1, 25);
}

inline uint32_t WithThumbDistance(uint32_t word, uint32_t distance) {
  const uint32_t sign = (distance >> 24) & 1;
  const uint32_t j1 = ~((distance >> 23) ^ sign) & 1, j2 = ~((distance >> 22) ^ sign) & 1;
  return (word & 0xd000f800) | sign << 10 | ((distance >> 12) & 0x3ff) | j1 << 29 | j2 << 27 | ((distance >> 1) & 0x7ff) << 16;
}

/** Whether a word is an ARM B or BL under any condition, or BLX, which leads to Thumb code. */
inline bool IsArmBranch(uint32_t word) { return (word & 0x0e000000) == 0x0a000000; }
inline bool IsArmExchange(uint32_t word) { return (word & 0xfe000000) == 0xfa000000; }

inline int64_t ArmDistance(uint32_t word) { return Signed(word, 24) * 4 + (IsArmExchange(word) ? (word >> 23) & 2 : 0); }

inline uint32_t WithArmDistance(uint32_t word, uint32_t distance) {
  const uint32_t words = (distance >> 2) & 0xffffff;
  return IsArmExchange(word) ? (word & 0xfe000000) | (distance & 2) << 23 | words : (word & 0xff000000) | words;
}

/** Whether a word is an AArch64 ADRP. */
inline bool IsPage(uint32_t word) { return (word & 0x9f000000) == 0x90000000; }

/** How many bytes an ADRP's page is away from its own. */
inline int64_t PageDistance(uint32_t word) { return Signed(((word >> 5) & 0x7ffff) << 2 | ((word >> 29) & 3), 21) * 4096; }

}  // namespace whittle::codec
