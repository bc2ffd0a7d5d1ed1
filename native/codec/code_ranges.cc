#include "codec/code_ranges.h"

#include <algorithm>

#include "codec/arm_fields.h"
#include "codec/number.h"

namespace whittle::codec {

namespace {

constexpr size_t kSample = 32 * 1024;

/** Whether code of a 32-bit ARM is made of words of four bytes: most of those are carried out always, which their highest four bits say. */
bool IsArmNotThumb(OldContent& old, const Table& code) {
  std::vector<uint8_t> bytes(kSample);
  const uint64_t start = code.start + (code.end - code.start) / 4 * 2;
  const size_t size = static_cast<size_t>(std::min<uint64_t>(kSample, code.end - start)) & ~size_t{3};
  old.Fetch(static_cast<int64_t>(start & ~uint64_t{3}), size, bytes.data());
  size_t always = 0;
  for (size_t index = 3; index < size; index += 4) always += bytes[index] >> 4 == 0xe;
  return always * 2 > size / 4;
}

/** Where a word stands, as what its fields count in: added to them or, to undo that, subtracted. */
struct Place {
  uint32_t words, pages;
  Place(uint64_t position, bool undo) : words(static_cast<uint32_t>(position) >> 2), pages(static_cast<uint32_t>(position) >> 12) {
    if (!undo) return;
    words = 0 - words;
    pages = 0 - pages;
  }
};

/** A word whose call, or page, counts from `place` on. Branches stay: they lead somewhere near, and hardly two to the same place. */
uint32_t Placed(uint32_t word, CodeKind kind, const Place& place) {
  if (kind == CodeKind::kArm) return (word & 0x0f000000) == 0x0b000000 ? (word & 0xff000000) | ((word + place.words) & 0x00ffffff) : word;
  if ((word & 0xfc000000) == 0x94000000) return 0x94000000 | ((word + place.words) & 0x03ffffff);
  if (!IsPage(word)) return word;
  const uint32_t pages = ((word >> 5 & 0x7ffff) << 2 | (word >> 29 & 3)) + place.pages;
  return (word & 0x9f00001f) | (pages & 3) << 29 | (pages >> 2 & 0x7ffff) << 5;
}

void TurnPairs(uint8_t* bytes, size_t size) {
  for (size_t index = 0; index + 2 <= size; index += 2) std::swap(bytes[index], bytes[index + 1]);
}

}  // namespace

CodeKind CodeRanges::At(uint64_t offset) const {
  for (const Table& range : ranges) {
    if (offset < range.end) return offset >= range.start ? kind : CodeKind::kNone;
  }
  return CodeKind::kNone;
}

CodeRanges FindCode(OldContent& old, const ElfImage& image) {
  CodeRanges code;
  Table longest;
  for (const Region& region : image.regions) {
    switch (region.kind) {
      case ReferenceKind::kX86Code: code.kind = image.is_64 ? CodeKind::kX86Long : CodeKind::kX86; break;
      case ReferenceKind::kArm64Code: code.kind = CodeKind::kArm64; break;
      case ReferenceKind::kArm32Code: code.kind = CodeKind::kThumb; break;
      case ReferenceKind::kRiscvCode: code.kind = CodeKind::kRiscv; break;
      default: continue;
    }
    code.ranges.push_back({region.start, region.end});
    if (region.end - region.start > longest.end - longest.start) longest = code.ranges.back();
  }
  if (code.kind == CodeKind::kThumb && IsArmNotThumb(old, longest)) code.kind = CodeKind::kArm;
  return code;
}

void TurnWords(uint8_t* bytes, size_t size, CodeKind kind, uint64_t position) {
  if (kind == CodeKind::kThumb) return TurnPairs(bytes, size);
  for (size_t index = 0; index + 4 <= size; index += 4) {
    StoreHighFirst(bytes + index, Placed(Load(bytes + index), kind, Place(position + index, false)));
  }
}

WholeWords::WholeWords(uint64_t position, size_t size, CodeKind kind) : begin(size), end(size) {
  const size_t width = WordBytes(kind);
  if (width == 1) return;
  begin = std::min(size, static_cast<size_t>((width - position % width) % width));
  end = begin + (size - begin) / width * width;
}

const uint8_t* CopyTurned(const uint8_t* bytes, size_t from, size_t to, const WholeWords& words, CodeKind kind, uint64_t position, uint8_t* room) {
  const size_t width = WordBytes(kind);
  // Of a word that is taken in part the rest is looked at.
  const size_t start = from <= words.begin || from >= words.end ? from : from - (from - words.begin) % width;
  const size_t end = to <= words.begin || to >= words.end ? to : to + (width - 1) - (to - words.begin + width - 1) % width;
  const size_t turned = std::max(words.begin, start), turned_end = std::min(words.end, end);
  std::copy(bytes + start, bytes + end, room);
  if (turned < turned_end) TurnWords(room + (turned - start), turned_end - turned, kind, position + turned);
  return room + (from - start);
}

void TurnWordsBack(uint8_t* bytes, size_t size, CodeKind kind, uint64_t position) {
  if (kind == CodeKind::kThumb) return TurnPairs(bytes, size);
  for (size_t index = 0; index + 4 <= size; index += 4) {
    Store(bytes + index, Placed(LoadHighFirst(bytes + index), kind, Place(position + index, true)));
  }
}

}  // namespace whittle::codec
