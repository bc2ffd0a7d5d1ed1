#include "codec/call_sites.h"

#include <algorithm>
#include <utility>

#include "codec/number.h"

namespace whittle::codec {

namespace {

constexpr size_t kMostTables = size_t{1} << 17;
constexpr uint64_t kCutBytes = 128;
constexpr size_t kMostRecord = kCallSiteNumbers * CallSiteNumber::kMostBytes;

/** The file offset of an exception table, and the address of its function. */
using Owner = std::pair<uint32_t, uint32_t>;

/** Exception tables that frames name, by offset. */
std::vector<Owner> FindOwners(OldContent& content, const LoadedRange& frames, const LoadedRange& exceptions) {
  constexpr uint64_t kLeast = 8, kMost = 0xffff, kWithTable = 17;
  std::vector<Owner> owners;
  Window window(content, frames.end);
  for (uint64_t at = frames.start; owners.size() < kMostTables;) {
    size_t left;
    const uint8_t* const frame = window.At(at, left);
    const uint64_t length = left < 8 ? 0 : Load(frame);
    if (length < kLeast || length > kMost) break;
    // A function and its size; then four bytes that are the address of its exception table.
    if (Load(frame + 4) != 0 && length >= kWithTable && left >= kWithTable + 4 && frame[16] == 4 && Load(frame + 17) != 0) {
      const uint64_t function = at + frames.bias + 8 + SignedWord(frame + 8);
      const uint64_t table = at + frames.bias + kWithTable + SignedWord(frame + kWithTable) - exceptions.bias;
      if (function <= UINT32_MAX && table >= exceptions.start && table < exceptions.end) owners.emplace_back(static_cast<uint32_t>(table), static_cast<uint32_t>(function));
    }
    at += 4 + length;
  }
  std::sort(owners.begin(), owners.end());
  // Functions that are made the same share one.
  owners.erase(std::unique(owners.begin(), owners.end(), [](const Owner& a, const Owner& b) { return a.first == b.first; }), owners.end());
  return owners;
}

/** Where the records of the exception table at `at` are; false when they are none that are understood. */
bool FindRecords(Window& window, uint64_t at, uint64_t& start, uint64_t& end) {
  constexpr uint8_t kOmitted = 0xff, kLeb = 1;
  size_t left;
  const uint8_t* const header = window.At(at, left);
  if (left < 4 || header[0] != kOmitted) return false;
  size_t used = 2;
  if (header[1] != kOmitted) {
    const CallSiteNumber types = CallSiteNumber::Read(header + used, left - used);
    if (types.bytes == 0) return false;
    used += types.bytes;
  }
  if (used >= left || header[used] != kLeb) return false;
  used++;
  const CallSiteNumber size = CallSiteNumber::Read(header + used, left - used);
  if (size.bytes == 0) return false;
  start = at + used + size.bytes;
  end = start + size.value;
  return true;
}

/** The bytes of the record at `at`; 0 when it does not end. */
size_t RecordBytes(Window& window, uint64_t at) {
  static_assert(kMostRecord <= Window::kAhead, "a record is seen whole");
  size_t left, used = 0;
  const uint8_t* const record = window.At(at, left);
  for (size_t number = 0; number < kCallSiteNumbers; number++) {
    const size_t bytes = CallSiteNumber::Read(record + used, left - used).bytes;
    if (bytes == 0) return 0;
    used += bytes;
  }
  return used;
}

}  // namespace

std::vector<CallSites> FindCallSites(OldContent& content, const LoadedRange& frames, const LoadedRange& exceptions) {
  std::vector<CallSites> tables;
  if (frames.end <= frames.start || exceptions.end <= exceptions.start || exceptions.end > UINT32_MAX) return tables;
  const std::vector<Owner> owners = FindOwners(content, frames, exceptions);
  Window window(content, exceptions.end);
  for (size_t index = 0; index < owners.size(); index++) {
    uint64_t start, end;
    if (!FindRecords(window, owners[index].first, start, end)) continue;
    end = std::min<uint64_t>(end, index + 1 < owners.size() ? owners[index + 1].first : exceptions.end);
    for (uint64_t at = start; at < end && tables.size() < kMostTables;) {
      const size_t bytes = RecordBytes(window, at);
      if (bytes == 0 || bytes > end - at) break;
      at += bytes;
      if (tables.empty() || tables.back().end != at - bytes || tables.back().function != owners[index].second || at - tables.back().start > kCutBytes) {
        tables.push_back({static_cast<uint32_t>(at - bytes), static_cast<uint32_t>(at), owners[index].second});
      } else {
        tables.back().end = static_cast<uint32_t>(at);
      }
    }
  }
  return tables;
}

}  // namespace whittle::codec
