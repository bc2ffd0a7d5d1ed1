#include "codec/references.h"

#include <algorithm>
#include <cstring>

#include "codec/arm_fields.h"
#include "codec/number.h"

namespace whittle::codec {

namespace {

/** Bytes that may be the opcode before a ModRM byte that means [rip + disp32]. */
struct X86Opcodes {
  X86Opcodes() {
    for (int opcode = 0; opcode < 0x40; opcode++) plain[opcode] = (opcode & 7) < 4;
    for (int opcode : {0x63, 0x69, 0x6b, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0xc0, 0xc1, 0xc6, 0xc7,
                       0xd1, 0xd3, 0xf6, 0xf7, 0xfe, 0xff}) {
      plain[opcode] = true;
    }
    for (int opcode = 0xd8; opcode < 0xe0; opcode++) plain[opcode] = true;
  }
  bool plain[256] = {};
};
const X86Opcodes kX86Opcodes;

bool LooksRipRelative(const uint8_t* modrm) {
  if ((modrm[0] & 0xc7) != 0x05) return false;
  // After 0F, or 0F 38 and 0F 3A, or a VEX prefix, almost every opcode takes a ModRM byte.
  if (modrm[-2] == 0x0f || modrm[-3] == 0x0f || modrm[-3] == 0xc5 || modrm[-4] == 0xc4) return true;
  return kX86Opcodes.plain[modrm[-1]];
}

}  // namespace

void AddressMap::Build(const ElfImage& image, const Shifts& shifts, const std::vector<SmallOp>& ops) {
  image_ = &image;
  shifts_ = shifts;
  shifts_.segments.resize(image.segments.size());
  last_segment_ = last_interval_ = 0;
  std::vector<Interval> sorted;
  sorted.reserve(ops.size());
  for (const SmallOp& op : ops) sorted.push_back({op.old_position, op.old_position + op.length, op.new_position});
  std::sort(sorted.begin(), sorted.end(), [](const Interval& a, const Interval& b) { return a.start != b.start ? a.start < b.start : a.to < b.to; });
  // Where copies overlap, the longer one says where things went.
  size_t count = 0;
  for (Interval interval : sorted) {
    if (count > 0 && interval.start < sorted[count - 1].end) {
      Interval& before = sorted[count - 1];
      if (interval.end - interval.start > before.end - before.start) {
        before.end = interval.start;
        if (before.end == before.start) count--;
      } else {
        if (interval.end <= before.end) continue;
        interval.to += before.end - interval.start;
        interval.start = before.end;
      }
    }
    sorted[count++] = interval;
  }
  sorted.resize(count);
  intervals_.swap(sorted);
}

int64_t AddressMap::NewBias(size_t segment) const {
  const Segment& old = image_->segments[segment];
  return static_cast<int64_t>(old.address - old.offset + static_cast<uint64_t>(shifts_.segments[segment].bias));
}

/** How far the byte at an old offset moved; what no copy covers moves with the copy before it. */
int64_t AddressMap::Shift(uint64_t offset) {
  if (intervals_.empty()) return 0;
  const auto covers = [&](size_t index) {
    return offset >= intervals_[index].start && (index + 1 == intervals_.size() || offset < intervals_[index + 1].start);
  };
  if (!covers(last_interval_)) {
    const auto after = std::upper_bound(intervals_.begin(), intervals_.end(), offset, [](uint64_t value, const Interval& interval) { return value < interval.start; });
    last_interval_ = after == intervals_.begin() ? 0 : static_cast<size_t>(after - intervals_.begin()) - 1;
  }
  const Interval& interval = intervals_[last_interval_];
  return static_cast<int64_t>(interval.to) - static_cast<int64_t>(interval.start);
}

bool AddressMap::Map(uint64_t address, uint64_t& mapped) {
  const auto holds = [&](size_t index) { return address >= image_->segments[index].address && address - image_->segments[index].address < image_->segments[index].memory_size; };
  if (!holds(last_segment_)) {
    const size_t found = image_->SegmentOfAddress(address);
    if (found == kNoSegment) return false;
    last_segment_ = found;
  }
  const Segment& segment = image_->segments[last_segment_];
  const uint64_t within = address - segment.address;
  if (within >= segment.file_size) mapped = address + static_cast<uint64_t>(shifts_.segments[last_segment_].tail);
  else mapped = address + static_cast<uint64_t>(Shift(segment.offset + within) + shifts_.segments[last_segment_].bias);
  return true;
}

void ReferenceRewriter::Rewrite(uint8_t* bytes, size_t size, uint64_t old_offset, uint64_t new_offset, uint8_t* marks, LearnedTargets* learned, const KnownTables* tables) {
  bytes_ = bytes;
  marks_ = marks;
  size_ = static_cast<int64_t>(size);
  learned_ = learned;
  tables_ = tables;
  noted_.clear();
  read_ = 0;
  std::memset(marks, 0, size);
  if (old_offset != next_old_ || new_offset != next_new_) drift_ = 0;
  next_old_ = old_offset + size;
  next_new_ = new_offset + size;
  const ElfImage& image = map_.image();
  auto region = std::upper_bound(image.regions.begin(), image.regions.end(), old_offset, [](uint64_t offset, const Region& candidate) { return offset < candidate.end; });
  for (; region != image.regions.end() && region->start < old_offset + size; ++region) {
    Part part;
    part.from = std::max<int64_t>(static_cast<int64_t>(region->start - old_offset), -static_cast<int64_t>(kLead));
    part.to = std::min<int64_t>(static_cast<int64_t>(region->end - old_offset), size_ + static_cast<int64_t>(kTrail));
    int64_t old_bias = 0, new_bias = 0;
    if (region->segment != kNoSegment) {
      old_bias = static_cast<int64_t>(image.segments[region->segment].address - image.segments[region->segment].offset);
      new_bias = map_.NewBias(region->segment);
    }
    part.old_base = old_offset + static_cast<uint64_t>(old_bias);
    part.new_base = new_offset + static_cast<uint64_t>(new_bias);
    part.section = region->start + static_cast<uint64_t>(old_bias);
    const bool loaded = region->segment != kNoSegment;
    if (region->kind >= ReferenceKind::kWasmCode) Wasm(part, *region, old_offset);
    else if (region->kind == ReferenceKind::kPointers) Pointers(part, region->start - old_offset);
    else if (region->kind == ReferenceKind::kRelocations) Relocations(part, region->start - old_offset);
    else if (region->kind == ReferenceKind::kSectionRelocations) SectionRelocations(part, region->start - old_offset, region->base);
    else if (region->kind == ReferenceKind::kSymbols) Symbols(part, region->start - old_offset, region->base);
    else if (loaded && region->kind == ReferenceKind::kX86Code) X86(part);
    else if (loaded && region->kind == ReferenceKind::kArm64Code) Arm64(part);
    else if (loaded && region->kind == ReferenceKind::kArm32Code) Arm32(part, old_offset);
    else if (loaded && region->kind == ReferenceKind::kRiscvCode) Riscv(part);
    else if (loaded && region->kind == ReferenceKind::kFrames) Frames(part);
    else if (loaded && region->kind == ReferenceKind::kFrameTable) FrameTable(part);
    else if (loaded && region->kind == ReferenceKind::kFunctionIndex) FunctionIndex(part, region->start - old_offset);
    else if (loaded && region->kind == ReferenceKind::kExceptions) Exceptions(part, old_offset);
    else if (loaded && image.go.found && region->kind == ReferenceKind::kGoFunctions) GoFunctions(part);
    else if (loaded && image.go.types_end != 0 && region->kind == ReferenceKind::kGoOffsets) GoOffsets(part);
    else if (loaded && image.go.types_end != 0 && image.is_64 && region->kind == ReferenceKind::kReadOnlyData) GoData(part);
    else if (loaded && region->kind == ReferenceKind::kReadOnlyData) JumpTables(part, old_offset);
  }
}

bool ReferenceRewriter::X86Relative(const Part& part, int64_t field, bool code_only, Mark mark) {
  if (field + 4 > part.to) return false;
  const uint64_t place = part.old_base + static_cast<uint64_t>(field) + 4;
  const int64_t distance = static_cast<int32_t>(Load(bytes_ + field));
  // A relocation will fill it in.
  if (distance == 0 && map_.image().is_object) return false;
  const uint64_t target = place + static_cast<uint64_t>(distance);
  uint64_t mapped;
  if (code_only) {
    const size_t segment = map_.image().SegmentOfAddress(target);
    if (segment == kNoSegment || !map_.image().segments[segment].executable) return false;
    if (StaysAlone(distance)) return true;
  }
  if (!map_.Map(target, mapped)) return false;
  Note({static_cast<int32_t>(field), Field::kRelative, 0, mark, -1, target, mapped, From(part.new_base + static_cast<uint64_t>(field) + 4)});
  return true;
}

void ReferenceRewriter::X86(const Part& part) {
  // A field that begins before the stretch may reach into it.
  const bool is_64 = map_.image().is_64;
  int64_t index = std::max<int64_t>(part.from, -8);
  const int64_t end = std::min(part.to, size_);
  while (index < end) {
    const uint8_t byte = bytes_[index];
    if ((byte & 0xfe) == 0xe8) {
      if (X86Relative(part, index + 1, true, kBranch)) { index += 5; continue; }
    } else if (byte == 0x0f) {
      if ((bytes_[index + 1] & 0xf0) == 0x80 && X86Relative(part, index + 2, true, kBranch)) { index += 6; continue; }
    } else if (is_64 && (byte & 0xc7) == 0x05) {
      if (LooksRipRelative(bytes_ + index) && X86Relative(part, index + 1, false, kData)) { index += 5; continue; }
    }
    index++;
  }
}

void ReferenceRewriter::Arm64Branch(const Part& part, int64_t index, uint32_t word, int bits, int low) {
  const int64_t old_distance = Signed(word >> low, bits) * 4;
  const uint64_t target = part.old_base + static_cast<uint64_t>(index) + static_cast<uint64_t>(old_distance);
  uint64_t mapped;
  if (StaysAlone(old_distance) || !map_.Map(target, mapped)) return;
  const Field field = bits == 26 ? Field::kBranch26 : bits == 19 ? Field::kBranch19 : Field::kBranch14;
  Note({static_cast<int32_t>(index), field, 0, kBranch, -1, target, mapped, From(part.new_base + static_cast<uint64_t>(index))});
}

/** Whether an instruction adds a 12-bit offset to a register: ADD, or a load or store; how far the offset is scaled. */
static bool UsesLow12(uint32_t word, int& scale) {
  if ((word & 0xffc00000) == 0x91000000) {
    scale = 0;
    return true;
  }
  if ((word & 0x3b000000) != 0x39000000) return false;
  scale = static_cast<int>(word >> 30);
  if (scale == 0 && (word & 0x04800000) == 0x04800000) scale = 4;
  return true;
}

void ReferenceRewriter::Arm64Page(const Part& part, int64_t index, uint32_t word) {
  const uint32_t target_register = word & 31;
  const uint64_t page = ((part.old_base + static_cast<uint64_t>(index)) & ~uint64_t{0xfff}) +
                        static_cast<uint64_t>(PageDistance(word));
  uint64_t target = page;
  const int64_t limit = std::min<int64_t>(part.to - 3, index + 4 * 14);
  for (int64_t next = index + 4; next < limit; next += 4) {
    const uint32_t user = Load(bytes_ + next);
    int scale;
    if (((user >> 5) & 31) == target_register && UsesLow12(user, scale)) {
      target = page + (static_cast<uint64_t>((user >> 10) & 0xfff) << scale);
      break;
    }
    if ((user & 0x9f00001f) == (0x90000000 | target_register)) break;
  }
  uint64_t mapped;
  if (!map_.Map(target, mapped)) return;
  Note({static_cast<int32_t>(index), Field::kPage, 0, kPage, -1, target, mapped, From(part.new_base + static_cast<uint64_t>(index))});
}

void ReferenceRewriter::Arm64Low(int64_t index, uint32_t word, uint64_t page, int scale, int32_t setter) {
  const uint64_t target = page + (static_cast<uint64_t>((word >> 10) & 0xfff) << scale);
  uint64_t mapped;
  if (map_.Map(target, mapped)) Note({static_cast<int32_t>(index), Field::kLow, static_cast<uint8_t>(scale), kLow, setter, target, mapped, 0});
}

void ReferenceRewriter::Arm64(const Part& part) {
  const int64_t misaligned = static_cast<int64_t>((part.old_base + static_cast<uint64_t>(part.from)) & 3);
  if (!labels_ && ((part.old_base ^ part.new_base) & 3) != 0) return;
  constexpr int64_t kReach = 64 * 4;
  std::array<uint64_t, 32> pages{};
  std::array<int64_t, 32> set_at;
  set_at.fill(-2 * kReach - static_cast<int64_t>(kLead));
  std::array<int32_t, 32> setters;  // of the noted ones
  setters.fill(-1);
  const int64_t end = std::min(part.to - 3, size_);
  for (int64_t index = part.from + ((4 - misaligned) & 3); index < end; index += 4) {
    const uint32_t word = Load(bytes_ + index);
    int scale;
    if (IsPage(word)) {
      if (map_.image().is_object) continue;
      pages[word & 31] = ((part.old_base + static_cast<uint64_t>(index)) & ~uint64_t{0xfff}) +
                         static_cast<uint64_t>(PageDistance(word));
      set_at[word & 31] = index;
      const size_t count = noted_.size();
      if (index > -4) Arm64Page(part, index, word);
      setters[word & 31] = noted_.size() > count ? static_cast<int32_t>(count) : -1;
    } else if (UsesLow12(word, scale)) {
      const uint32_t base = (word >> 5) & 31;
      if (index > -4 && index - set_at[base] <= kReach) Arm64Low(index, word, pages[base], scale, setters[base]);
    } else if (index > -4) {
      if ((word & 0x7c000000) == 0x14000000) Arm64Branch(part, index, word, 26, 0);
      else if ((word & 0xff000010) == 0x54000000 || (word & 0x7e000000) == 0x34000000 || (word & 0x3b000000) == 0x18000000) Arm64Branch(part, index, word, 19, 5);
      else if ((word & 0x7e000000) == 0x36000000) Arm64Branch(part, index, word, 14, 5);
    }
  }
}

void ReferenceRewriter::Arm32(const Part& part, uint64_t old_offset) {
  if (!labels_ && ((part.old_base ^ part.new_base) & 1) != 0) return;
  const std::vector<PoolWord>& pool = map_.image().pool_words;
  int64_t index = std::max<int64_t>(part.from, -4);
  index += static_cast<int64_t>((part.old_base + static_cast<uint64_t>(index)) & 1);
  auto word = std::lower_bound(pool.begin(), pool.end(), static_cast<int64_t>(old_offset) + index, [](const PoolWord& candidate, int64_t offset) { return candidate.offset < offset; });
  const int64_t end = std::min(part.to - 3, size_);
  for (; index < end; index += 2) {
    while (word != pool.end() && static_cast<int64_t>(word->offset) < static_cast<int64_t>(old_offset) + index) ++word;
    const bool is_pool = word != pool.end() && static_cast<int64_t>(word->offset) == static_cast<int64_t>(old_offset) + index;
    if (is_pool ? PoolReference(index, *word) : ArmBranch(part, index)) index += 2;
  }
}

/** A word that is added to the address of an instruction. */
bool ReferenceRewriter::PoolReference(int64_t index, const PoolWord& word) {
  const uint64_t target = word.user + word.ahead + SignedWord(bytes_ + index);
  uint64_t mapped, user;
  if (!map_.Map(target, mapped) || !map_.Map(word.user, user)) return false;
  Note({static_cast<int32_t>(index), Field::kRelative, 0, kData, -1, target, mapped, From(user + word.ahead)});
  return true;
}

/** B, BL and BLX of four bytes, Thumb or not. */
bool ReferenceRewriter::ArmBranch(const Part& part, int64_t index) {
  const uint32_t word = Load(bytes_ + index);
  const uint64_t place = part.old_base + static_cast<uint64_t>(index), new_place = part.new_base + static_cast<uint64_t>(index);
  uint64_t mapped;
  if (IsThumbCall(word)) {
    const uint64_t target = place + 4 + static_cast<uint64_t>(ThumbDistance(word));
    if (!map_.Map(target, mapped)) return false;
    Note({static_cast<int32_t>(index), Field::kThumb, 0, kBranch, -1, target, mapped, From(new_place + 4)});
    return true;
  }
  if ((place & 3) != 0 || (new_place & 3) != 0 || !IsArmBranch(word)) return false;
  const uint64_t target = place + 8 + static_cast<uint64_t>(ArmDistance(word));
  const size_t segment = map_.image().SegmentOfAddress(target);
  if (segment == kNoSegment || !map_.image().segments[segment].executable || !map_.Map(target, mapped)) return false;
  Note({static_cast<int32_t>(index), Field::kArm, 0, kBranch, -1, target, mapped, From(new_place + 8)});
  return true;
}

}  // namespace whittle::codec
