// Words between the functions of 32-bit ARM code that say how far it is from an instruction to what it refers to: the
// instruction adds the program counter to what another one loaded.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/loaded_range.h"

namespace whittle::codec {

/** The file offset of a word, and the address of the instruction that it counts from, `ahead` bytes before what it counts from. */
struct PoolWord {
  uint32_t offset = 0, user = 0;
  uint8_t ahead = 0;
};

/** Finds such words in `code`, ascending. Reads all of it once. Offsets and addresses from 4 GiB on are not looked at. */
std::vector<PoolWord> FindPoolWords(OldContent& content, const std::vector<LoadedRange>& code);

}  // namespace whittle::codec
