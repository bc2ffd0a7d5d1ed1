// Where old code is, and what it is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/elf_image.h"

namespace whittle::codec {

/** What stretches of a file are made of, as far as it matters to the models. */
enum class CodeKind : uint8_t { kNone, kX86, kX86Long, kThumb, kArm, kArm64, kRiscv };

/** Bytes of a word of code, 1 when it is not made of words. */
constexpr size_t WordBytes(CodeKind kind) {
  return kind == CodeKind::kArm || kind == CodeKind::kArm64 ? 4 : kind == CodeKind::kThumb ? 2 : 1;
}

constexpr bool IsX86(CodeKind kind) { return kind == CodeKind::kX86 || kind == CodeKind::kX86Long; }

/** Stretches of old code, all of one kind. */
struct CodeRanges {
  CodeKind kind = CodeKind::kNone;
  std::vector<Table> ranges;  // ascending

  /** The kind of code at an old offset. */
  CodeKind At(uint64_t offset) const;
};

/** The code of an old file; of ARM's two kinds of it, that which most of it seems to be. */
CodeRanges FindCode(OldContent& old, const ElfImage& image);

/**
 * Turns each word of `size` bytes (a multiple of its bytes) around, so that it is told highest byte first: that is where an
 * instruction says what it is. What calls (AArch64, ARM) and pages of addresses (AArch64) count from their own place then
 * counts from the file's start, so that two that lead to the same place are the same. `position` is that of the first byte.
 */
void TurnWords(uint8_t* bytes, size_t size, CodeKind kind, uint64_t position);

/** Where the whole words of a stretch of code begin and end in it; both at its end when it has none. */
struct WholeWords {
  WholeWords(uint64_t position, size_t size, CodeKind kind);
  size_t begin, end;
};

/**
 * Copies bytes [from, to) of a stretch that begins at `position`, its whole words turned, of which some may be taken in part. `room` takes
 * to - from bytes and six more. Returns where in it the first of them is.
 */
const uint8_t* CopyTurned(const uint8_t* bytes, size_t from, size_t to, const WholeWords& words, CodeKind kind, uint64_t position, uint8_t* room);

/** Undoes TurnWords. */
void TurnWordsBack(uint8_t* bytes, size_t size, CodeKind kind, uint64_t position);

}  // namespace whittle::codec
