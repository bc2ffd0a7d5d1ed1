// The tables that Go's linker makes: what its runtime knows of functions (pclntab), and descriptors of types.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "codec/old_content.h"

namespace whittle::codec {

/** What numbers in Go's tables count from. */
enum class GoBase : uint8_t { kNames, kUnits, kFiles, kValues, kFunctions, kText, kTypes, kFunctionData };
constexpr size_t kGoBases = 8;

/** Where the tables of an executable are. Addresses are those of the file that they were read from. */
struct GoTables {
  static constexpr uint64_t kMaxFunctions = uint64_t{1} << 18;

  bool found = false;
  std::array<uint64_t, kGoBases> bases{};  // addresses; 0 when not known
  uint64_t types_end = 0;
  uint32_t fixed_words = 0;         // of a function's record, before its offsets of values and of data
  std::vector<uint32_t> entries;    // of functions, from the text's start, ascending
  std::vector<uint32_t> records;    // of functions, from the function table's start, ascending

  uint64_t base(GoBase which) const { return bases[static_cast<size_t>(which)]; }
  bool IsEntry(uint32_t offset) const;
};

/** Where to look for them. */
struct GoHints {
  uint64_t section_offset = 0, section_size = 0, section_address = 0;  // of .gopclntab
  uint64_t text_address = 0;                                           // of .text
  struct Part {
    uint64_t offset, size;
  };
  std::vector<Part> data;  // file offsets of what may hold the runtime's record of the module
  int word = 8;            // bytes of an address
};

/** Reads the tables of Go 1.18 and later; false when they are not what they should be. Everything lies within `content`. */
bool ParseGoTables(OldContent& content, const GoHints& hints, GoTables& tables);

}  // namespace whittle::codec
