#include "codec/kernel_image.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "codec/number.h"

namespace whittle::codec {

namespace {

constexpr uint64_t kEntry = 24;
/** Fewer entries in a row are chance. */
constexpr uint64_t kFewest = 1024;

/** Entries in a row that put an address somewhere, and the lowest of those addresses. */
struct Relocations {
  Table table;
  uint64_t lowest = ~uint64_t{0};
};

/** The first table of relocations, at a multiple of 8; an empty one when there is none. */
Relocations FindRelocations(OldContent& content) {
  constexpr uint64_t kRelative = 1027;
  constexpr size_t kChunk = 32 * 1024;
  std::vector<uint8_t> bytes(kChunk + kEntry);
  Relocations found;
  uint64_t chunk = 0, chunk_end = 0;
  for (uint64_t offset = 0; offset + kEntry <= content.size();) {
    if (offset + kEntry > chunk_end) {
      chunk = offset;
      chunk_end = std::min<uint64_t>(chunk + bytes.size(), content.size());
      content.Fetch(static_cast<int64_t>(chunk), static_cast<size_t>(chunk_end - chunk), bytes.data());
    }
    const uint8_t* const entry = bytes.data() + (offset - chunk);
    if (Number(entry + 8, 8) == kRelative) {
      if (found.table.end != offset) found = {{offset, offset}, ~uint64_t{0}};
      found.table.end += kEntry;
      found.lowest = std::min(found.lowest, Number(entry + 16, 8));
      offset += kEntry;
    } else {
      if (found.table.end - found.table.start >= kFewest * kEntry) return found;
      offset += 8;
    }
  }
  return found.table.end - found.table.start >= kFewest * kEntry ? found : Relocations();
}

}  // namespace

bool IsKernelImage(const uint8_t* header) { return std::memcmp(header + 56, "ARM\x64", 4) == 0; }

void ParseKernelImage(OldContent& content, const uint8_t* header, ElfImage& image) {
  constexpr uint64_t kAlignment = uint64_t{1} << 21, kMostBytes = uint64_t{1} << 32;
  const Relocations relocations = FindRelocations(content);
  const uint64_t size = content.size(), loaded = Number(header + 16, 8);
  const Table table = relocations.table;
  image.is_64 = true;
  image.segments.push_back({table.end > 0 ? relocations.lowest & ~(kAlignment - 1) : 0, 0, size, std::max(size, std::min(loaded, kMostBytes)), true});
  if (table.end == 0) {
    image.regions.push_back({0, size, ReferenceKind::kArm64Code, 0, 0});
    return;
  }
  image.regions.push_back({0, table.start, ReferenceKind::kArm64Code, 0, 0});
  image.regions.push_back({table.start, table.end, ReferenceKind::kRelocations, 0, 0});
  if (table.end < size) image.regions.push_back({table.end, size, ReferenceKind::kArm64Code, 0, 0});
}

}  // namespace whittle::codec
