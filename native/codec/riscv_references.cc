// References that RISC-V code makes: jumps, branches, and addresses in two halves.
#include <algorithm>
#include <array>

#include "codec/number.h"
#include "codec/references.h"
#include "codec/riscv_fields.h"

namespace whittle::codec {

/** A jump or a branch. Where an object file's is 0, a relocation will fill it in. */
void ReferenceRewriter::RiscvJump(const Part& part, int64_t index, Field field, int64_t distance) {
  const uint64_t target = part.old_base + static_cast<uint64_t>(index) + static_cast<uint64_t>(distance);
  uint64_t mapped;
  if (StaysAlone(distance) || (distance == 0 && map_.image().is_object) || !map_.Map(target, mapped)) return;
  Note({static_cast<int32_t>(index), field, 0, kBranch, -1, target, mapped, From(part.new_base + static_cast<uint64_t>(index))});
}

/** Finds the lower half of an address, in the first instruction near the upper one that uses its register: both make the target. */
bool ReferenceRewriter::FindLower(const Part& part, int64_t index, uint32_t upper, int64_t& lower) const {
  constexpr int64_t kSearch = 60;
  const uint32_t base = RiscvTarget(upper);
  const int64_t limit = std::min<int64_t>(part.to - 3, index + kSearch);
  for (int64_t next = index + 4; next < limit;) {
    const uint32_t user = Load(bytes_ + next);
    if (AddsLow12(user) && RiscvBase(user) == base) {
      lower = Low12(user);
      return true;
    }
    if (RegisterSet(user, map_.image().is_64) == base) return false;
    next += RiscvBytes(user);
  }
  return false;
}

/** The upper half of an address; what it puts into its register. */
ReferenceRewriter::Upper ReferenceRewriter::RiscvUpper(const Part& part, int64_t index, uint32_t word) {
  const uint64_t place = static_cast<uint64_t>(index), from = From(part.new_base + place);
  Upper upper = {index, -1, part.old_base + place + static_cast<uint64_t>(UpperDistance(word)), from};
  int64_t lower;
  uint64_t mapped;
  if (index <= -4 || !FindLower(part, index, word, lower)) return upper;
  const uint64_t target = upper.address + static_cast<uint64_t>(lower);
  if (!map_.Map(target, mapped)) return upper;
  const size_t number = noted_.size();
  Note({static_cast<int32_t>(index), Field::kUpper, 0, kPage, -1, target, mapped, from});
  // Without what was learned nothing is noted.
  if (noted_.size() > number) upper.noted = static_cast<int32_t>(number);
  return upper;
}

/** What adds an offset to a register that holds an upper half. */
void ReferenceRewriter::RiscvLower(int64_t index, uint32_t word, const Upper& upper) {
  constexpr int64_t kReach = 256;
  const uint64_t target = upper.address + static_cast<uint64_t>(Low12(word));
  uint64_t mapped;
  if (index - upper.at > kReach || !map_.Map(target, mapped)) return;
  Note({static_cast<int32_t>(index), Field::kLower, 0, kLow, upper.noted, target, mapped, upper.from});
}

void ReferenceRewriter::Riscv(const Part& part) {
  if (!labels_ && ((part.old_base ^ part.new_base) & 1) != 0) return;
  const ElfImage& image = map_.image();
  std::array<Upper, 32> uppers{};  // by register
  const int64_t end = std::min(part.to - 3, size_);
  int64_t index = part.from + static_cast<int64_t>((part.old_base + static_cast<uint64_t>(part.from)) & 1);
  while (index < end) {
    const uint32_t word = Load(bytes_ + index);
    const int bytes = RiscvBytes(word);
    // What begins before the stretch may reach into it.
    if (index > -bytes) {
      // Conditional branches of two bytes, which lead 256 bytes away at most, are not worth it.
      if (IsShortJump(word, image.is_64)) RiscvJump(part, index, Field::kShortJump, ShortJumpDistance(word));
      else if (IsJal(word)) RiscvJump(part, index, Field::kJal, JalDistance(word));
      else if (IsRiscvBranch(word)) RiscvJump(part, index, Field::kRiscvBranch, RiscvBranchDistance(word));
      else if (AddsLow12(word)) RiscvLower(index, word, uppers[RiscvBase(word)]);
    }
    // Where x0 is set, nothing is. In an object file relocations will fill them in.
    const bool is_upper = IsAuipc(word) && RiscvTarget(word) != 0 && !image.is_object;
    uppers[RegisterSet(word, image.is_64)] = is_upper ? RiscvUpper(part, index, word) : Upper();
    index += bytes;
  }
}

}  // namespace whittle::codec
