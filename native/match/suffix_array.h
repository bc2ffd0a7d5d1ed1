// Suffix sorting in linear time.
#pragma once

#include <cstdint>

namespace whittle {

/** Longest text that SortSuffixes takes: positions are int32. */
constexpr uint64_t kMaxSuffixArrayText = (uint64_t{1} << 31) - 64;

/**
 * Writes the suffix array of text[0, size) to `suffixes` (room for `size` numbers): the start positions of all
 * suffixes in lexicographic order, a suffix before those it is a prefix of. Bytes compare unsigned.
 * SA-IS (Nong, Zhang, Chan): linear time, at most 2 * size + 2 KiB bytes beyond text and `suffixes`, rarely more than 2 KiB.
 */
void SortSuffixes(const uint8_t* text, int32_t* suffixes, int32_t size);

}  // namespace whittle
