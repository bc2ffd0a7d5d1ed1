#include <algorithm>

#include "codec/number.h"
#include "codec/references.h"

namespace whittle::codec {

namespace {

/** The first index of a part, not before -3, whose address is a multiple of `width`. */
int64_t FirstAligned(int64_t from, uint64_t base, int64_t width) {
  const int64_t first = std::max<int64_t>(from, 1 - width);
  return first + static_cast<int64_t>((0 - (base + static_cast<uint64_t>(first))) & static_cast<uint64_t>(width - 1));
}

}  // namespace

/** Maps a number that counts, in units of `scale` bytes, from the base of one of Go's tables. */
void ReferenceRewriter::GoOffset(int64_t index, GoBase base, uint32_t scale) {
  const uint64_t from = map_.image().go.base(base);
  const uint64_t target = from + uint64_t{Load(bytes_ + index)} * scale;
  uint64_t mapped;
  if (from == 0 || !map_.Map(target, mapped)) return;
  Note({static_cast<int32_t>(index), Field::kOffset, static_cast<uint8_t>(scale), kOffset, -1, target, mapped, map_.NewBase(base)});
}

void ReferenceRewriter::GoFunctions(const Part& part) {
  const GoTables& go = map_.image().go;
  const uint64_t units = go.base(GoBase::kUnits), files = go.base(GoBase::kFiles), table = go.base(GoBase::kFunctions);
  const uint64_t records = table + go.entries.size() * 8 + 4;
  size_t next = 0;  // the first record after the word at hand, once it is known
  const int64_t end = std::min(part.to - 3, size_);
  for (int64_t index = FirstAligned(part.from, part.old_base, 4); index < end; index += 4) {
    const uint64_t address = part.old_base + static_cast<uint64_t>(index);
    if (address >= units && address < files) {
      if (Load(bytes_ + index) != 0xffffffff) GoOffset(index, GoBase::kFiles);
    } else if (address >= table && address < records) {
      GoOffset(index, (address - table) & 4 ? GoBase::kFunctions : GoBase::kText);
    } else if (address >= records) {
      const uint64_t offset = address - table;
      if (next == 0) next = static_cast<size_t>(std::upper_bound(go.records.begin(), go.records.end(), offset) - go.records.begin());
      while (next < go.records.size() && go.records[next] <= offset) next++;
      if (next > 0) GoRecordWord(part, index, go.records[next - 1]);
    }
  }
}

/** A word of a function's record, or of what stands between records. */
void ReferenceRewriter::GoRecordWord(const Part& part, int64_t index, uint32_t record) {
  const GoTables& go = map_.image().go;
  const int64_t start = index - static_cast<int64_t>(part.old_base + static_cast<uint64_t>(index) - go.base(GoBase::kFunctions) - record);
  const uint32_t word = static_cast<uint32_t>((index - start) / 4), fixed = go.fixed_words;
  if (start < -static_cast<int64_t>(kLead) || ((index - start) & 3) != 0) return;
  const uint32_t value = Load(bytes_ + index);
  if (word == 0) return GoOffset(index, GoBase::kText);
  if (word == 1) return GoOffset(index, GoBase::kNames);
  if (word >= 4 && word <= 6) {
    if (value != 0) GoOffset(index, GoBase::kValues);
    return;
  }
  if (word == 8) return GoOffset(index, GoBase::kUnits, 4);
  if (word < fixed) return;
  const uint32_t values = Load(bytes_ + start + 28), data = bytes_[start + 4 * static_cast<int64_t>(fixed) - 1];
  if (word - fixed < values) {
    if (value != 0) GoOffset(index, GoBase::kValues);
  } else if (word - fixed - values < data && value != 0xffffffff) {
    GoOffset(index, GoBase::kFunctionData);
  }
}

/** A number that may be an offset of a function or of a type or its name. */
bool ReferenceRewriter::GoTypeOrText(int64_t index) {
  const GoTables& go = map_.image().go;
  const uint32_t value = Load(bytes_ + index);
  if (value == 0) return false;
  if (go.IsEntry(value)) GoOffset(index, GoBase::kText);
  else if (value < go.types_end - go.base(GoBase::kTypes)) GoOffset(index, GoBase::kTypes);
  else return false;
  return true;
}

void ReferenceRewriter::GoOffsets(const Part& part) {
  const int64_t end = std::min(part.to - 3, size_);
  for (int64_t index = FirstAligned(part.from, part.old_base, 4); index < end; index += 4) GoTypeOrText(index);
}

/** Whether the word at `index` holds the offset of a type's name: a hash, alignments and a kind come three words before it. */
bool ReferenceRewriter::IsGoName(int64_t index) const {
  const uint32_t traits = Load(bytes_ + index - 20);
  const auto is_alignment = [](uint32_t value) { return value >= 1 && value <= 8 && (value & (value - 1)) == 0; };
  const uint32_t kind = traits >> 24 & 31;
  return is_alignment(traits >> 8 & 255) && is_alignment(traits >> 16 & 255) && kind >= 1 && kind <= 26;
}

void ReferenceRewriter::GoData(const Part& part) {
  const int64_t end = std::min(part.to - 7, size_);
  // What was rewritten already of the type that a word belongs to: nothing that IsGoName looks at.
  for (int64_t index = FirstAligned(part.from, part.old_base, 8); index < end; index += 8) {
    uint64_t mapped;
    const uint32_t low = Load(bytes_ + index);
    if (Load(bytes_ + index + 4) == 0 && low >= 0x1000 && !IsGoName(index) && map_.Map(low, mapped)) {
      Note({static_cast<int32_t>(index), Field::kPointer, 0, kPointer, -1, low, mapped, 0});
    } else {
      GoTypeOrText(index);
      GoTypeOrText(index + 4);
    }
  }
}

}  // namespace whittle::codec
