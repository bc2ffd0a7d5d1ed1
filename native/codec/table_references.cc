// References that data makes: pointers and relocations, symbols, what unwinding reads, and jump tables.
#include <algorithm>
#include <array>

#include "codec/arm_fields.h"
#include "codec/number.h"
#include "codec/references.h"

namespace whittle::codec {

namespace {

/** Less is no address: numbers are small. */
constexpr uint64_t kLeastAddress = 0x200;

/** The first index, not before `from` nor so early that nothing of it is left, of an entry of a table that starts at `begin`. */
int64_t FirstEntry(int64_t from, int64_t begin, int64_t entry_bytes) {
  const int64_t first = std::max(from, 1 - entry_bytes);
  return begin + (first - begin + entry_bytes - 1) / entry_bytes * entry_bytes;
}

}  // namespace

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
  const int64_t end = std::min(part.to - kEntry + 1, size_);
  for (int64_t index = FirstEntry(part.from, static_cast<int64_t>(region_start), kEntry); index < end; index += kEntry) {
    const uint64_t place = Number(bytes_ + index, 8), addend = Number(bytes_ + index + 16, 8);
    uint64_t mapped;
    if (place >= kLeastAddress && map_.Map(place, mapped)) Note({static_cast<int32_t>(index), Field::kPlace, 0, kPointer, -1, place, mapped, 0});
    if (addend >= kLeastAddress && map_.Map(addend, mapped)) StorePointer(index + 16, true, mapped);
  }
}

/**
 * Relocations of object files: a place, counted from the section that begins at `base`; what to do, and the number of a symbol; and in 64-bit
 * files an addend to where that is. What x86 code counts from its own place counts from its end.
 */
void ReferenceRewriter::SectionRelocations(const Part& part, uint64_t region_start, uint64_t base) {
  const bool is_64 = map_.image().is_64;
  const int64_t entry = is_64 ? 24 : 8, word = is_64 ? 8 : 4;
  const int64_t end = std::min(part.to - entry + 1, size_);
  uint64_t new_base, mapped;
  if (!map_.Map(base, new_base)) return;
  for (int64_t index = FirstEntry(part.from, static_cast<int64_t>(region_start), entry); index < end; index += entry) {
    const uint64_t place = base + Number(bytes_ + index, static_cast<int>(word));
    if (map_.Map(place, mapped)) {
      if (is_64) Note({static_cast<int32_t>(index), Field::kPlace, 0, kPointer, -1, place, mapped, From(new_base)});
      else Store(index, static_cast<uint32_t>(mapped - From(new_base)), kPointer);
    }
    if (is_64) SectionAddend(index);
    else Store(index + 4, NewSymbol(Load(bytes_ + index + 4) >> 8) << 8 | bytes_[index + 4], kOffset);
  }
}

/** The symbol and the addend of the relocation at `index`. */
void ReferenceRewriter::SectionAddend(int64_t index) {
  constexpr uint32_t kX86Distance = 2, kX86Call = 4;
  const std::vector<uint32_t>& symbols = map_.image().symbol_offsets;
  const uint32_t type = Load(bytes_ + index + 8), symbol = Load(bytes_ + index + 12);
  const bool is_x86 = !map_.image().is_riscv && (type == kX86Distance || type == kX86Call);
  const uint64_t ahead = is_x86 ? 4 : 0, addend = Number(bytes_ + index + 16, 8) + ahead;
  uint64_t from, mapped;
  if (symbol != 0) Store(index + 12, NewSymbol(symbol), kOffset);
  if (addend == 0 || symbol >= symbols.size() || symbols[symbol] == kNoOffset || !map_.Map(symbols[symbol], from)) return;
  if (map_.Map(symbols[symbol] + addend, mapped)) StorePointer(index + 16, true, mapped - From(from + ahead));
}

/** The new number of a symbol: its entry moves as file offsets do. */
uint32_t ReferenceRewriter::NewSymbol(uint32_t symbol) {
  const uint64_t start = map_.image().symbols.start, entry = map_.image().is_64 ? 24 : 16;
  return static_cast<uint32_t>((map_.MapOffset(start + symbol * entry) - map_.MapOffset(start)) / entry);
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

/** Symbols: a name, a value and a size, and traits, which in 64-bit files come second. */
void ReferenceRewriter::Symbols(const Part& part, uint64_t region_start, uint64_t strings) {
  const bool is_64 = map_.image().is_64;
  const int64_t entry = is_64 ? 24 : 16, value_at = is_64 ? 8 : 4, size_at = is_64 ? 16 : 8;
  const int64_t end = std::min(part.to - entry + 1, size_);
  const uint64_t new_strings = map_.MapOffset(strings);
  for (int64_t index = FirstEntry(part.from, static_cast<int64_t>(region_start), entry); index < end; index += entry) {
    const uint32_t name = Load(bytes_ + index), size = Load(bytes_ + index + size_at);
    if (name != 0) Store(index, static_cast<uint32_t>(map_.MapOffset(strings + name) - new_strings), kOffset);
    const uint64_t value = Number(bytes_ + index + value_at, is_64 ? 8 : 4);
    uint64_t base = 0, new_base = 0, mapped, last;
    if (map_.image().is_object ? !SectionBase(Load(bytes_ + index + (is_64 ? 6 : 14)) & 0xffff, base, new_base) : value < kLeastAddress) continue;
    if (!map_.Map(base + value, mapped)) continue;
    StorePointer(index + value_at, is_64, mapped - From(new_base));
    if (size != 0 && map_.Map(base + value + size - 1, last)) Store(index + size_at, static_cast<uint32_t>(last + 1 - mapped), kOffset);
  }
}

/** Where a section of an object file begins, and where that is in the new file; false when it has no content. */
bool ReferenceRewriter::SectionBase(uint32_t section, uint64_t& base, uint64_t& new_base) {
  const std::vector<uint32_t>& offsets = map_.image().section_offsets;
  if (section >= offsets.size() || offsets[section] == kNoOffset) return false;
  base = offsets[section];
  return map_.Map(base, new_base);
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
