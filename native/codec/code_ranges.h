// Where old code is whose instructions are words: their bytes are told highest first, as that is where an instruction says what it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/elf_image.h"

namespace whittle::codec {

/** Stretches of old code, and how wide the words are that it is made of. */
struct CodeRanges {
  size_t width = 1;           // bytes: 4, 2, or 1 when there is no such code
  std::vector<Table> ranges;  // ascending

  /** The width of words at an old offset; 1 where there is none of this code. */
  size_t WidthAt(uint64_t offset) const;
};

/** The code of an old file; of ARM's two kinds of it, that which most of it seems to be. For other machines: none. */
CodeRanges FindCode(OldContent& old, const ElfImage& image);

/** Turns each word of `size` bytes (a multiple of `width`) around. */
void TurnWords(uint8_t* bytes, size_t size, size_t width);

}  // namespace whittle::codec
