// Numbers of a file, little-endian.
#pragma once

#include <cstdint>

namespace whittle::codec {

/** The number in `width` bytes, at most eight. */
inline uint64_t Number(const uint8_t* bytes, int width) {
  uint64_t value = 0;
  for (int index = width - 1; index >= 0; index--) value = value << 8 | bytes[index];
  return value;
}

/** The word at `bytes`. */
inline uint32_t Load(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 | static_cast<uint32_t>(bytes[2]) << 16 |
         static_cast<uint32_t>(bytes[3]) << 24;
}

/** Writes the word at `bytes`. */
inline void Store(uint8_t* bytes, uint32_t word) {
  for (int index = 0; index < 4; index++) bytes[index] = static_cast<uint8_t>(word >> (8 * index));
}

/** The word at `bytes`, highest byte first. */
inline uint32_t LoadHighFirst(const uint8_t* bytes) { return __builtin_bswap32(Load(bytes)); }

/** Writes the word at `bytes`, highest byte first. */
inline void StoreHighFirst(uint8_t* bytes, uint32_t word) { Store(bytes, __builtin_bswap32(word)); }

/** The signed word at `bytes`, extended to 64 bits: an offset to add to an address. */
inline uint64_t SignedWord(const uint8_t* bytes) { return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(Load(bytes)))); }

}  // namespace whittle::codec
