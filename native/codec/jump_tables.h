// Tables of where the cases of a switch are, in read-only data of x86-64 and RISC-V code: offsets of 32 bits from the table's own start.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/loaded_range.h"

namespace whittle::codec {

/** File offsets [start, end) of a table. */
struct JumpTable {
  uint32_t start = 0, end = 0;
};

/**
 * Finds the tables in `data` that `code` (ascending) takes the addresses of and that lead into it, ascending. Reads all of
 * the code once, which is `is_riscv` or x86-64, and of the data what may be a table. Offsets from 4 GiB on are not looked at.
 */
std::vector<JumpTable> FindJumpTables(OldContent& content, const std::vector<LoadedRange>& code, const LoadedRange& data, bool is_riscv);

}  // namespace whittle::codec
