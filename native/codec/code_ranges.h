// Where old code is. Of instructions that are words, bytes are told highest first, as that is where an instruction says what
// it is; those of x86 are followed byte by byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/elf_image.h"

namespace whittle::codec {

/** Stretches of old code, and what it is made of. */
struct CodeRanges {
  size_t width = 1;           // bytes of a word: 4, 2, or 1 when it is not made of words
  bool is_x86 = false, is_64 = false;
  std::vector<Table> ranges;  // ascending

  /** Whether there is code at an old offset. */
  bool Hold(uint64_t offset) const;
};

/** The code of an old file; of ARM's two kinds of it, that which most of it seems to be. */
CodeRanges FindCode(OldContent& old, const ElfImage& image);

/** Turns each word of `size` bytes (a multiple of `width`) around. */
void TurnWords(uint8_t* bytes, size_t size, size_t width);

}  // namespace whittle::codec
