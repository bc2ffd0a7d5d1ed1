// Tells which of the usual encoders a raw deflate stream may be of, so that only those need be run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace whittle::deflate {

enum class Maker : uint8_t { kZlib = 0, kZlibOfMuchMemory = 1, kGnu = 2 };

/**
 * Each a maker times 16 and a level from 1 to 9: those that choose at the stream's beginning as it does, but for few of its copies and
 * literals, and end its first block where it does. All of them where the stream cannot be taken apart.
 */
std::vector<uint8_t> LikelyMakers(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size);

}  // namespace whittle::deflate
