#include "codec/go_tables.h"

#include <algorithm>

#include "codec/number.h"

namespace whittle::codec {

namespace {

constexpr uint64_t kMostData = uint64_t{16} << 20;
constexpr size_t kChunk = 32 * 1024;

/** Words of the runtime's record of a module, which begins with the addresses of the function tables and of their names. */
struct ModuleLayout {
  int text = 22, types, types_end, function_data;
};
constexpr ModuleLayout kGo118 = {22, 35, 36, 38};
constexpr ModuleLayout kGo120 = {22, 37, 38, 40};
constexpr size_t kModuleWords = 41;

/** Finds the module's record by its first two words. */
bool FindModule(OldContent& content, const GoHints& hints, uint64_t first, uint64_t second, uint64_t* words) {
  const size_t width = static_cast<size_t>(hints.word);
  std::vector<uint8_t> bytes(kChunk + kModuleWords * width);
  uint64_t left = kMostData;
  for (const GoHints::Part& part : hints.data) {
    const uint64_t size = std::min(part.size, left);
    left -= size;
    for (uint64_t done = 0; done < size; done += kChunk) {
      content.Fetch(static_cast<int64_t>(part.offset + done), bytes.size(), bytes.data());
      const size_t limit = static_cast<size_t>(std::min<uint64_t>(kChunk, size - done));
      for (size_t index = 0; index < limit; index += width) {
        if (Number(&bytes[index], hints.word) != first || Number(&bytes[index + width], hints.word) != second) continue;
        for (size_t word = 0; word < kModuleWords; word++) words[word] = Number(&bytes[index + word * width], hints.word);
        return true;
      }
    }
  }
  return false;
}

/** Reads the pairs (entry, record) of the function table at `offset`. */
bool ReadFunctions(OldContent& content, uint64_t offset, uint64_t count, GoTables& tables) {
  std::vector<uint8_t> bytes(kChunk);
  tables.entries.reserve(static_cast<size_t>(count));
  tables.records.reserve(static_cast<size_t>(count));
  for (uint64_t done = 0; done < count;) {
    const size_t pairs = static_cast<size_t>(std::min<uint64_t>(kChunk / 8, count - done));
    content.Fetch(static_cast<int64_t>(offset + done * 8), pairs * 8, bytes.data());
    for (size_t pair = 0; pair < pairs; pair++) {
      const uint32_t entry = static_cast<uint32_t>(Number(&bytes[pair * 8], 4));
      const uint32_t record = static_cast<uint32_t>(Number(&bytes[pair * 8 + 4], 4));
      if (!tables.entries.empty() && (entry < tables.entries.back() || record <= tables.records.back())) return false;
      tables.entries.push_back(entry);
      tables.records.push_back(record);
    }
    done += pairs;
  }
  return true;
}

}  // namespace

bool GoTables::IsEntry(uint32_t offset) const { return std::binary_search(entries.begin(), entries.end(), offset); }

bool ParseGoTables(OldContent& content, const GoHints& hints, GoTables& tables) {
  const uint64_t width = static_cast<uint64_t>(hints.word);
  uint8_t header[8 + 8 * 8];
  if (hints.section_size < sizeof header) return false;
  content.Fetch(static_cast<int64_t>(hints.section_offset), sizeof header, header);
  const uint32_t magic = static_cast<uint32_t>(Number(header, 4));
  if ((magic != 0xfffffff0 && magic != 0xfffffff1) || header[7] != width) return false;
  uint64_t fields[8];  // functions, files, text, then where names, units, files, values and functions are
  for (size_t index = 0; index < 8; index++) fields[index] = Number(header + 8 + index * width, hints.word);
  const uint64_t count = fields[0];
  if (count == 0 || count > GoTables::kMaxFunctions) return false;
  for (size_t index = 3; index < 8; index++) {
    if (fields[index] >= hints.section_size) return false;
    tables.bases[index - 3] = hints.section_address + fields[index];
  }
  if (count * 8 + 4 > hints.section_size - fields[7]) return false;
  if (!ReadFunctions(content, hints.section_offset + fields[7], count, tables)) return false;
  tables.fixed_words = magic == 0xfffffff1 ? 11 : 10;
  tables.bases[static_cast<size_t>(GoBase::kText)] = fields[2] != 0 ? fields[2] : hints.text_address;
  uint64_t words[kModuleWords];
  if (FindModule(content, hints, hints.section_address, hints.section_address + fields[3], words)) {
    const ModuleLayout& layout = magic == 0xfffffff1 ? kGo120 : kGo118;
    const uint64_t types = words[layout.types], types_end = words[layout.types_end];
    tables.bases[static_cast<size_t>(GoBase::kText)] = words[layout.text];
    tables.bases[static_cast<size_t>(GoBase::kFunctionData)] = words[layout.function_data];
    if (types < types_end && types_end - types < uint64_t{1} << 31) {
      tables.bases[static_cast<size_t>(GoBase::kTypes)] = types;
      tables.types_end = types_end;
    }
  }
  tables.found = true;
  return true;
}

}  // namespace whittle::codec
