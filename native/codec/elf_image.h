// What the sources of a file say about addresses, when they are an ELF file: segments, and stretches that hold
// references of a known kind. Reads only what it checks; a file that is not what it claims gives fewer stretches.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/call_sites.h"
#include "codec/go_tables.h"
#include "codec/jump_tables.h"
#include "codec/old_content.h"
#include "codec/pool_words.h"
#include "codec/wasm_image.h"

namespace whittle::codec {

/** One loadable segment. Addresses and offsets of the file that it was read from. */
struct Segment {
  uint64_t address = 0, offset = 0, file_size = 0, memory_size = 0;
  bool executable = false;
};

/** What kind of references a stretch of a file holds. */
enum class ReferenceKind : uint8_t { kX86Code, kArm64Code, kArm32Code, kRiscvCode, kPointers, kSymbols, kFrames, kFrameTable, kGoFunctions, kReadOnlyData, kGoOffsets, kRelocations, kSectionRelocations, kFunctionIndex, kExceptions, kWasmCode, kWasmTypes, kWasmFunctions, kWasmData };

/** A stretch of file offsets [start, end). */
struct Region {
  uint64_t start = 0, end = 0;
  ReferenceKind kind = ReferenceKind::kPointers;
  size_t segment = 0;  // index, or kNoSegment
  uint64_t base = 0;  // of symbols the file offset of their names, of an object file's relocations that of the section they are for
};
constexpr size_t kNoSegment = ~size_t{0};
/** What stands for the file offset of a section that has no content, or of what a symbol that has none names. */
constexpr uint32_t kNoOffset = ~uint32_t{0};

/** File offsets [start, end) of a table; nothing when the file has none. */
struct Table {
  uint64_t start = 0, end = 0;
};

struct ElfImage {
  bool is_64 = false;
  bool is_riscv = false;
  uint32_t relative_type = 0;  // what a relocation to an address is called, in files that have those with addends; else 0
  Table relocations, frames, frame_table;
  std::vector<Segment> segments;
  std::vector<Region> regions;  // ascending, not overlapping
  // Of an object file, whose addresses count from their sections. It is taken as one segment, in which an address is a file offset.
  bool is_object = false;
  Table symbols;
  std::vector<uint32_t> section_offsets;  // by section number
  std::vector<uint32_t> symbol_offsets;   // by symbol number: the file offset of what it names
  GoTables go;
  std::vector<JumpTable> jump_tables;  // ascending, not overlapping
  std::vector<CallSites> call_sites;   // so too
  std::vector<PoolWord> pool_words;    // ascending
  WasmImage wasm;                      // found in modules, which have no segments

  /** The segment that holds a file offset, or kNoSegment. */
  size_t SegmentOfOffset(uint64_t offset) const;
  /** The segment that holds an address, its zero-filled end included, or kNoSegment. */
  size_t SegmentOfAddress(uint64_t address) const;
};

/**
 * Parses the content; false when it is no little-endian ELF file of a known machine, no kernel, and no WebAssembly module.
 * Jump tables take a look at all of the code, and call sites at all frames: without `with_tables` there are none, and modules are not looked into.
 */
bool ParseElf(OldContent& content, ElfImage& image, bool with_tables = true);

}  // namespace whittle::codec
