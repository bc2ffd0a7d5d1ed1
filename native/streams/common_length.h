// How far two places of a text agree.
#pragma once

#include <cstdint>
#include <cstring>

namespace whittle::streams {

/** How many of the first `limit` bytes are the same; both places have that many. */
inline uint32_t CommonLength(const uint8_t* here, const uint8_t* there, uint32_t limit) {
  uint32_t length = 0;
  while (length + 8 <= limit && std::memcmp(here + length, there + length, 8) == 0) length += 8;
  while (length < limit && here[length] == there[length]) length++;
  return length;
}

}  // namespace whittle::streams
