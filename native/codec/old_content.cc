#include "codec/old_content.h"

#include <algorithm>
#include <cstring>

namespace whittle::codec {

void OldContent::Fetch(int64_t start, size_t size, uint8_t* destination) {
  const int64_t limit = static_cast<int64_t>(reader_.size());
  const int64_t end = start + static_cast<int64_t>(size);
  const int64_t first = std::min(std::max<int64_t>(start, 0), limit);
  const int64_t last = std::max(first, std::min(end, limit));
  if (last == first) {
    std::memset(destination, 0, size);
    return;
  }
  if (first > start) std::memset(destination, 0, static_cast<size_t>(first - start));
  if (last < end) std::memset(destination + (last - start), 0, static_cast<size_t>(end - last));
  try {
    reader_.Read(static_cast<uint64_t>(first), static_cast<size_t>(last - first), destination + (first - start));
  } catch (const CodedError& error) {
    throw CodedError("BASIS_DAMAGED", error.what());
  }
}

}  // namespace whittle::codec
