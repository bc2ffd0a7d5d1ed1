#include "codec/jump_tables.h"

#include <algorithm>

#include "codec/number.h"
#include "codec/riscv_fields.h"

namespace whittle::codec {

namespace {

constexpr size_t kMostCandidates = size_t{1} << 18;
constexpr size_t kMostTables = size_t{1} << 16;
constexpr size_t kChunk = 32 * 1024;

/** How far from its first byte what may be an LEA leads: REX.W with or without REX.R, 8D, and a ModRM byte that means [rip + disp32]. */
bool X86Address(const uint8_t* code, uint64_t& distance) {
  if (code[1] != 0x8d || (code[2] & 0xc7) != 0x05 || (code[0] & 0xfb) != 0x48) return false;
  distance = 7 + SignedWord(code + 3);
  return true;
}

/** The same of AUIPC and, after it, ADDI of its register. */
bool RiscvAddress(const uint8_t* code, uint64_t& distance) {
  const uint32_t upper = Load(code), lower = Load(code + 4);
  if (!IsAuipc(upper) || (lower & 0x707f) != 0x13 || RiscvBase(lower) != RiscvTarget(upper)) return false;
  distance = static_cast<uint64_t>(UpperDistance(upper) + Low12(lower));
  return true;
}

/** Offsets of data, multiples of 4, that instructions take the addresses of. */
template <bool (*Address)(const uint8_t*, uint64_t&)>
std::vector<uint32_t> Candidates(OldContent& content, const std::vector<LoadedRange>& code, const LoadedRange& data) {
  constexpr size_t kInstruction = 8;
  std::vector<uint32_t> found;
  std::vector<uint8_t> bytes(kChunk + kInstruction);
  for (const LoadedRange& range : code) {
    for (uint64_t at = range.start; at < range.end; at += kChunk) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, range.end - at));
      content.Fetch(static_cast<int64_t>(at), size + kInstruction, bytes.data());
      for (size_t index = 0; index < size; index++) {
        uint64_t distance;
        if (!Address(&bytes[index], distance)) continue;
        const uint64_t offset = at + index + range.bias + distance - data.bias;
        if (offset < data.start || offset >= data.end || (offset & 3) != 0) continue;
        if (found.size() == kMostCandidates) return found;
        found.push_back(static_cast<uint32_t>(offset));
      }
    }
  }
  return found;
}

/** The address that the word at `offset` leads to from `base`; false past the end. */
bool ReadTarget(Window& data, uint64_t offset, uint64_t base, uint64_t& target) {
  size_t left;
  const uint8_t* const word = data.At(offset, left);
  if (left < 4) return false;
  target = base + SignedWord(word);
  return true;
}

}  // namespace

std::vector<JumpTable> FindJumpTables(OldContent& content, const std::vector<LoadedRange>& code, const LoadedRange& data, bool is_riscv) {
  std::vector<JumpTable> tables;
  if (code.empty() || data.end > UINT32_MAX) return tables;
  std::vector<uint32_t> candidates = is_riscv ? Candidates<RiscvAddress>(content, code, data) : Candidates<X86Address>(content, code, data);
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  const uint64_t low = code.front().start + code.front().bias, high = code.back().end + code.back().bias;
  Window words(content, data.end);
  for (size_t index = 0; index < candidates.size() && tables.size() < kMostTables; index++) {
    const uint64_t start = candidates[index], base = start + data.bias;
    const uint64_t limit = index + 1 < candidates.size() ? candidates[index + 1] : data.end;
    uint64_t end = start, target;
    while (end < limit && ReadTarget(words, end, base, target) && target >= low && target < high) end += 4;
    if (end > start + 4) tables.push_back({static_cast<uint32_t>(start), static_cast<uint32_t>(end)});
  }
  return tables;
}

}  // namespace whittle::codec
