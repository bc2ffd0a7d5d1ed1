// References that are rewritten when their turn comes: what is decoded before tells where they lead.
#include <algorithm>

#include "codec/arm_fields.h"
#include "codec/number.h"
#include "codec/references.h"
#include "codec/riscv_fields.h"

namespace whittle::codec {

void ReferenceRewriter::Put(int64_t index, uint32_t value) {
  for (int64_t byte = 0; byte < 4; byte++) bytes_[index + byte] = static_cast<uint8_t>(value >> (8 * byte));
}

void ReferenceRewriter::MarkField(int64_t index, Mark mark, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte++) {
    if (index + byte >= 0 && index + byte < size_) marks_[index + byte] = static_cast<uint8_t>(mark * 4 + byte);
  }
}

void ReferenceRewriter::Store(int64_t index, uint32_t value, Mark mark) {
  Put(index, value);
  MarkField(index, mark);
}

void ReferenceRewriter::StorePointer(int64_t index, bool is_64, uint64_t value) {
  Store(index, static_cast<uint32_t>(value), kPointer);
  if (is_64) Store(index + 4, static_cast<uint32_t>(value >> 32), kPointer);
}

/** Takes up a reference: it is rewritten at once, or noted for Place. */
void ReferenceRewriter::Note(const Noted& noted) {
  MarkField(noted.index, noted.mark, FieldBytes(noted.field));
  if (IsLong(noted.field)) MarkField(noted.index + 4, noted.mark);
  if (learned_ == nullptr) Write(noted);
  else noted_.push_back(noted);
}

void ReferenceRewriter::Write(const Noted& noted) {
  const uint64_t shift = learned_ == nullptr ? 0 : noted.field == Field::kPlace ? drift_ : static_cast<uint64_t>(int64_t{learned_->Find(noted.address)});
  const uint64_t target = noted.mapped + shift;
  const uint32_t word = Load(bytes_ + noted.index), distance = static_cast<uint32_t>(target - noted.from);
  const uint32_t pages = static_cast<uint32_t>((target >> 12) - (noted.from >> 12));
  switch (noted.field) {
    case Field::kRelative: return Put(noted.index, distance);
    case Field::kBranch26: return Put(noted.index, (word & 0xfc000000) | (static_cast<uint32_t>((target - noted.from) >> 2) & 0x03ffffff));
    case Field::kBranch19: return Put(noted.index, (word & ~(0x7ffffu << 5)) | (static_cast<uint32_t>((target - noted.from) >> 2) & 0x7ffff) << 5);
    case Field::kBranch14: return Put(noted.index, (word & ~(0x3fffu << 5)) | (static_cast<uint32_t>((target - noted.from) >> 2) & 0x3fff) << 5);
    case Field::kPage: return Put(noted.index, (word & 0x9f00001f) | (pages & 3) << 29 | ((pages >> 2) & 0x7ffff) << 5);
    case Field::kLow: return Put(noted.index, (word & ~(0xfffu << 10)) | (static_cast<uint32_t>(target & 0xfff) >> noted.scale) << 10);
    case Field::kThumb: return Put(noted.index, WithThumbDistance(word, distance));
    case Field::kArm: return Put(noted.index, WithArmDistance(word, distance));
    case Field::kOffset: return Put(noted.index, static_cast<uint32_t>((target - noted.from) / noted.scale));
    case Field::kJal: return Put(noted.index, WithJalDistance(word, distance));
    case Field::kRiscvBranch: return Put(noted.index, WithRiscvBranchDistance(word, distance));
    case Field::kShortJump: return Put(noted.index, WithShortJumpDistance(word, distance));
    case Field::kUpper: return Put(noted.index, WithUpper(word, distance));
    case Field::kLower: return Put(noted.index, WithLow12(word, distance));
    case Field::kPointer: case Field::kPlace:
      Put(noted.index, distance);
      Put(noted.index + 4, static_cast<uint32_t>((target - noted.from) >> 32));
  }
}

/** Where a reference leads in the new file; false when what stands there is none, or one that says little. */
bool ReferenceRewriter::ReadTarget(const Noted& noted, const uint8_t* bytes, uint64_t& target) const {
  const uint32_t word = Load(bytes + noted.index);
  switch (noted.field) {
    case Field::kRelative: target = noted.from + static_cast<uint64_t>(Signed(word, 32)); return true;
    case Field::kBranch26: target = noted.from + static_cast<uint64_t>(Signed(word, 26) * 4); return (word & 0x7c000000) == 0x14000000;
    case Field::kThumb: target = noted.from + static_cast<uint64_t>(ThumbDistance(word)); return IsThumbCall(word);
    case Field::kArm: target = noted.from + static_cast<uint64_t>(ArmDistance(word)); return IsArmBranch(word);
    case Field::kOffset: target = noted.from + uint64_t{word} * noted.scale; return true;
    case Field::kPointer: case Field::kPlace: target = noted.from + (word | uint64_t{Load(bytes + noted.index + 4)} << 32); return true;
    case Field::kLow: {
      if (noted.page < 0) return false;
      const Noted& setter = noted_[static_cast<size_t>(noted.page)];
      if (setter.index < 0) return false;
      const uint32_t page = Load(bytes + setter.index);
      target = (setter.from & ~uint64_t{0xfff}) + static_cast<uint64_t>(PageDistance(page)) + (uint64_t{(word >> 10) & 0xfff} << noted.scale);
      return IsPage(page) && ((word >> 5) & 31) == (page & 31);
    }
    case Field::kJal: target = noted.from + static_cast<uint64_t>(JalDistance(word)); return IsJal(word);
    case Field::kLower: {
      if (noted.page < 0) return false;
      const Noted& setter = noted_[static_cast<size_t>(noted.page)];
      if (setter.index < 0) return false;
      const uint32_t upper = Load(bytes + setter.index);
      target = noted.from + static_cast<uint64_t>(UpperDistance(upper)) + static_cast<uint64_t>(Low12(word));
      return IsAuipc(upper) && AddsLow12(word) && RiscvBase(word) == RiscvTarget(upper);
    }
    // A branch within a function leads wherever its code went.
    case Field::kRiscvBranch: case Field::kShortJump: case Field::kUpper: break;
    case Field::kBranch19: case Field::kBranch14: case Field::kPage: break;
  }
  return false;
}

void ReferenceRewriter::Place(size_t from, size_t to) {
  const int64_t begin = from == 0 ? -static_cast<int64_t>(kLead) : static_cast<int64_t>(from), end = static_cast<int64_t>(to + kAhead);
  auto next = std::lower_bound(noted_.begin(), noted_.end(), begin, [](const Noted& noted, int64_t index) { return noted.index < index; });
  for (; next != noted_.end() && next->index < end; ++next) Write(*next);
}

bool ReferenceRewriter::Learn(const uint8_t* bytes, size_t to) {
  bool changed = false;
  for (; read_ < noted_.size(); read_++) {
    const Noted& noted = noted_[read_];
    if (noted.index + (IsLong(noted.field) ? 8 : 4) > static_cast<int64_t>(to)) break;
    uint64_t target;
    if (noted.index < 0 || !ReadTarget(noted, bytes, target)) continue;
    const uint64_t shift = target - noted.mapped;
    if (noted.field != Field::kPlace) {
      changed |= learned_->Learn(noted.address, static_cast<int64_t>(shift));
    } else if (shift != drift_) {
      drift_ = shift;
      changed = true;
    }
  }
  return changed;
}

}  // namespace whittle::codec
