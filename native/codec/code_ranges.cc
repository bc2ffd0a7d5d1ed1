#include "codec/code_ranges.h"

#include <algorithm>

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

}  // namespace

bool CodeRanges::Hold(uint64_t offset) const {
  for (const Table& range : ranges) {
    if (offset < range.end) return offset >= range.start;
  }
  return false;
}

CodeRanges FindCode(OldContent& old, const ElfImage& image) {
  CodeRanges code;
  code.is_64 = image.is_64;
  Table longest;
  for (const Region& region : image.regions) {
    switch (region.kind) {
      case ReferenceKind::kX86Code: code.is_x86 = true; break;
      case ReferenceKind::kArm64Code: code.width = 4; break;
      case ReferenceKind::kArm32Code: code.width = 2; break;
      default: continue;
    }
    code.ranges.push_back({region.start, region.end});
    if (region.end - region.start > longest.end - longest.start) longest = code.ranges.back();
  }
  if (code.width == 2 && IsArmNotThumb(old, longest)) code.width = 4;
  return code;
}

void TurnWords(uint8_t* bytes, size_t size, size_t width) {
  if (width == 4) {
    for (size_t index = 0; index + 4 <= size; index += 4) {
      std::swap(bytes[index], bytes[index + 3]);
      std::swap(bytes[index + 1], bytes[index + 2]);
    }
  } else if (width == 2) {
    for (size_t index = 0; index + 2 <= size; index += 2) std::swap(bytes[index], bytes[index + 1]);
  }
}

}  // namespace whittle::codec
