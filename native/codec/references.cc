#include "codec/references.h"

#include <algorithm>
#include <cstring>

#include "codec/arm_fields.h"
#include "codec/number.h"

namespace whittle::codec {

namespace {

/** Less is no address: numbers are small. */
constexpr uint64_t kLeastAddress = 0x200;

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
    if (region->kind == ReferenceKind::kPointers) Pointers(part, region->start - old_offset);
    else if (region->kind == ReferenceKind::kRelocations) Relocations(part, region->start - old_offset);
    else if (region->kind == ReferenceKind::kSymbols) Symbols(part, region->start - old_offset, region->strings);
    else if (loaded && region->kind == ReferenceKind::kX86Code) X86(part);
    else if (loaded && region->kind == ReferenceKind::kArm64Code) Arm64(part);
    else if (loaded && region->kind == ReferenceKind::kArm32Code) Arm32(part, old_offset);
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

void ReferenceRewriter::Pointers(const Part& part, uint64_t region_start) {
  const int64_t width = map_.image().is_64 ? 8 : 4;
  const int64_t phase = static_cast<int64_t>((static_cast<uint64_t>(part.from) - region_start) & static_cast<uint64_t>(width - 1));
  const int64_t end = std::min(part.to - width + 1, size_);
  size_t hint = 0;
  for (int64_t index = part.from + ((width - phase) & (width - 1)); index < end; index += width) {
    if (index <= -width) continue;
    uint64_t told;
    if (width == 8 && tables_ != nullptr && tables_->Relocated(part.new_base + static_cast<uint64_t>(index), hint, told)) {
      StorePointer(index, true, told);
      continue;
    }
    const uint64_t low = Load(bytes_ + index);
    const uint64_t value = width == 8 ? low | static_cast<uint64_t>(Load(bytes_ + index + 4)) << 32 : low;
    uint64_t mapped;
    if (value < kLeastAddress || !map_.Map(value, mapped)) continue;
    StorePointer(index, width == 8, mapped);
  }
}

/** Relocations of 64-bit files: a place, what to do, and an addend. Places ascend, so that one tells how wrong the map is of the next. */
void ReferenceRewriter::Relocations(const Part& part, uint64_t region_start) {
  constexpr int64_t kEntry = 24;
  const int64_t begin = static_cast<int64_t>(region_start);
  const int64_t first = std::max<int64_t>(part.from, 1 - kEntry);
  const int64_t end = std::min(part.to - kEntry + 1, size_);
  for (int64_t index = begin + (first - begin + kEntry - 1) / kEntry * kEntry; index < end; index += kEntry) {
    const uint64_t place = Number(bytes_ + index, 8), addend = Number(bytes_ + index + 16, 8);
    uint64_t mapped;
    if (place >= kLeastAddress && map_.Map(place, mapped)) Note({static_cast<int32_t>(index), Field::kPlace, 0, kPointer, -1, place, mapped, 0});
    if (addend >= kLeastAddress && map_.Map(addend, mapped)) StorePointer(index + 16, true, mapped);
  }
}

/** Of each function an address, then what to do when it is unwound: an address too, unless that is said in the word itself. Both in 31 bits. */
void ReferenceRewriter::FunctionIndex(const Part& part, uint64_t region_start) {
  constexpr uint32_t kInline = 0x80000000, kCannot = 1;
  const int64_t phase = static_cast<int64_t>((static_cast<uint64_t>(part.from) - region_start) & 3);
  const int64_t end = std::min(part.to - 3, size_);
  for (int64_t index = part.from + ((4 - phase) & 3); index < end; index += 4) {
    const uint32_t word = Load(bytes_ + index);
    uint64_t mapped;
    if (index <= -4 || (word & kInline) != 0 || word == kCannot) continue;
    if (!map_.Map(part.old_base + static_cast<uint64_t>(index) + static_cast<uint64_t>(Signed(word, 31)), mapped)) continue;
    Store(index, static_cast<uint32_t>(mapped - From(part.new_base + static_cast<uint64_t>(index))) & ~kInline, kFrame);
  }
}

void ReferenceRewriter::Exceptions(const Part& part, uint64_t old_offset) {
  const std::vector<CallSites>& tables = map_.image().call_sites;
  auto table = std::upper_bound(tables.begin(), tables.end(), old_offset, [](uint64_t offset, const CallSites& candidate) { return offset < candidate.end; });
  for (; table != tables.end(); ++table) {
    int64_t index = static_cast<int64_t>(table->start) - static_cast<int64_t>(old_offset);
    if (index >= size_) return;
    uint64_t mapped;
    if (index < part.from || !map_.Map(table->function, mapped)) continue;
    const int64_t limit = std::min(part.to, index + static_cast<int64_t>(table->end - table->start));
    while (index < limit && index < size_) index = CallSite(index, limit, table->function, mapped);
  }
}

/** Rewrites the record at `index`: its numbers but the last count from the function. Returns where the next begins. */
int64_t ReferenceRewriter::CallSite(int64_t index, int64_t limit, uint64_t function, uint64_t mapped) {
  std::array<CallSiteNumber, kCallSiteNumbers> numbers;
  std::array<int64_t, kCallSiteNumbers> places;
  for (size_t number = 0; number < kCallSiteNumbers; number++) {
    places[number] = index;
    numbers[number] = CallSiteNumber::Read(bytes_ + index, static_cast<size_t>(limit - index));
    if (numbers[number].bytes == 0) return limit;
    index += static_cast<int64_t>(numbers[number].bytes);
    for (int64_t byte = places[number]; byte < index; byte++) {
      if (byte >= 0 && byte < size_) marks_[byte] = static_cast<uint8_t>(kCallSite * 4 + number);
    }
  }
  const uint64_t start = function + numbers[0].value, length = numbers[1].value, pad = numbers[2].value;
  uint64_t to, last;
  if (!map_.Map(start, to)) return index;
  PutNumber(places[0], numbers[0], to - mapped);
  if (length != 0 && map_.Map(start + length - 1, last)) PutNumber(places[1], numbers[1], last + 1 - to);
  if (pad != 0 && map_.Map(function + pad, last)) PutNumber(places[2], numbers[2], last - mapped);
  return index;
}

/** Writes a number in place of another; one that would take more or fewer bytes is not written. */
void ReferenceRewriter::PutNumber(int64_t index, const CallSiteNumber& old, uint64_t value) {
  const size_t bits = 7 * old.bytes;
  if (value >> bits != 0 || (old.bytes > 1 && value >> (bits - 7) == 0)) return;
  for (size_t byte = 0; byte < old.bytes; byte++) bytes_[index + static_cast<int64_t>(byte)] = static_cast<uint8_t>((value >> (7 * byte) & 127) | (byte + 1 < old.bytes ? 128 : 0));
}

/** Symbols of 64-bit files: a name, traits, a value and a size. */
void ReferenceRewriter::Symbols(const Part& part, uint64_t region_start, uint64_t strings) {
  constexpr int64_t kEntry = 24;
  const int64_t begin = static_cast<int64_t>(region_start);
  const int64_t first = std::max<int64_t>(part.from, 1 - kEntry);
  const int64_t end = std::min(part.to - kEntry + 1, size_);
  const uint64_t new_strings = map_.MapOffset(strings);
  for (int64_t index = begin + (first - begin + kEntry - 1) / kEntry * kEntry; index < end; index += kEntry) {
    const uint32_t name = Load(bytes_ + index), size = Load(bytes_ + index + 16);
    if (name != 0) Store(index, static_cast<uint32_t>(map_.MapOffset(strings + name) - new_strings), kOffset);
    const uint64_t value = Load(bytes_ + index + 8) | static_cast<uint64_t>(Load(bytes_ + index + 12)) << 32;
    uint64_t mapped, last;
    if (value < kLeastAddress || !map_.Map(value, mapped)) continue;
    StorePointer(index + 8, true, mapped);
    if (size != 0 && map_.Map(value + size - 1, last)) Store(index + 16, static_cast<uint32_t>(last + 1 - mapped), kOffset);
  }
}

void ReferenceRewriter::JumpTables(const Part& part, uint64_t old_offset) {
  const std::vector<JumpTable>& tables = map_.image().jump_tables;
  const int64_t end = std::min(part.to - 3, size_);
  const int64_t first = std::max<int64_t>(part.from, -3);
  auto table = std::upper_bound(tables.begin(), tables.end(), static_cast<int64_t>(old_offset) + first, [](int64_t offset, const JumpTable& candidate) { return offset < static_cast<int64_t>(candidate.end); });
  for (; table != tables.end(); ++table) {
    const int64_t start = static_cast<int64_t>(table->start) - static_cast<int64_t>(old_offset);
    if (start >= end) return;
    const uint64_t old_start = part.old_base + static_cast<uint64_t>(start);
    uint64_t new_start, mapped;
    if (!map_.Map(old_start, new_start)) continue;
    const int64_t limit = std::min(end, start + static_cast<int64_t>(table->end - table->start));
    for (int64_t index = start >= first ? start : start + (first - start + 3) / 4 * 4; index < limit; index += 4) {
      const uint64_t target = old_start + SignedWord(bytes_ + index);
      if (map_.Map(target, mapped)) Store(index, static_cast<uint32_t>(mapped - From(new_start)), kOffset);
    }
  }
}

void ReferenceRewriter::Frames(const Part& part) {
  int64_t index = part.from + static_cast<int64_t>((4 - ((static_cast<uint64_t>(part.from) + part.old_base - part.section) & 3)) & 3) + 8;
  const int64_t end = std::min(part.to - 3, size_ + 4);
  while (index < end) {
    // A length and a distance back to a CIE come before the address of the function that a frame describes.
    const uint64_t place = part.old_base + static_cast<uint64_t>(index);
    const uint32_t length = Load(bytes_ + index - 8), distance = Load(bytes_ + index - 4);
    uint64_t mapped;
    const uint64_t start = place + SignedWord(bytes_ + index);
    if (length < 12 || length > 0xffff || (length & 3) != 0 || distance == 0 || distance > place - 4 - part.section || !map_.Map(start, mapped)) {
      index += 4;
      continue;
    }
    if (index > -16) Frame(part, index, start, mapped);
    index += 12;
  }
}

/** The frame whose function's address stands at `index`: before it comes a distance to a CIE, after it a size and perhaps an address of data. */
void ReferenceRewriter::Frame(const Part& part, int64_t index, uint64_t start, uint64_t mapped) {
  const uint64_t place = part.old_base + static_cast<uint64_t>(index), new_place = part.new_base + static_cast<uint64_t>(index);
  uint64_t shared, last, data;
  if (map_.Map(place - 4 - Load(bytes_ + index - 4), shared)) Store(index - 4, static_cast<uint32_t>(From(new_place - 4) - shared), kFrame);
  uint64_t told = 0, next = 0;
  const bool is_told = tables_ != nullptr && tables_->FunctionOf(new_place - 8, told, next);
  Store(index, static_cast<uint32_t>((is_told ? told : mapped) - From(new_place)), kFrame);
  if (index + 13 > part.to) return;
  const uint32_t size = Load(bytes_ + index + 4);
  if (size != 0 && map_.Map(start + size - 1, last)) {
    // Where the map is wrong of the function it says nothing of its size.
    uint64_t length = is_told && told != mapped ? size : last + 1 - mapped;
    if (is_told && next > told) length = std::min(length, next - told);
    Store(index + 4, static_cast<uint32_t>(length), kFrame);
  }
  const int32_t offset = static_cast<int32_t>(Load(bytes_ + index + 9));
  if (bytes_[index + 8] == 4 && offset != 0 && map_.Map(place + 9 + static_cast<uint64_t>(static_cast<int64_t>(offset)), data)) {
    Store(index + 9, static_cast<uint32_t>(data - From(new_place + 9)), kFrame);
  }
}

void ReferenceRewriter::FrameTable(const Part& part) {
  uint64_t new_section;
  if (!map_.Map(part.section, new_section)) return;
  int64_t index = part.from + static_cast<int64_t>((4 - ((static_cast<uint64_t>(part.from) + part.old_base - part.section) & 3)) & 3);
  const int64_t end = std::min(part.to - 3, size_);
  for (; index < end; index += 4) {
    if (index <= -4 || part.old_base + static_cast<uint64_t>(index) - part.section < 12) continue;
    uint64_t mapped, function, frame;
    const uint64_t within = part.new_base + static_cast<uint64_t>(index) - new_section - 12;
    if (tables_ != nullptr && tables_->FrameEntry(within / 8, function, frame)) mapped = within & 4 ? frame : function;
    else if (!map_.Map(part.section + SignedWord(bytes_ + index), mapped)) continue;
    Store(index, static_cast<uint32_t>(mapped - new_section), kFrame);
  }
}

}  // namespace whittle::codec
