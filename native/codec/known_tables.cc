#include "codec/known_tables.h"

#include <cstring>

#include "codec/number.h"
#include "codec/references.h"

namespace whittle::codec {

namespace {

constexpr uint64_t kMostAddress = 0xffffffffu;
constexpr size_t kTableHeader = 12;

}  // namespace

KnownTables::Reader KnownTables::Find(const Table& table, size_t need, const ElfImage& old, AddressMap& map) {
  Reader reader;
  if (table.end <= table.start) return reader;
  const size_t segment = old.SegmentOfOffset(table.start);
  if (segment == kNoSegment) return reader;
  reader.at = map.MapOffset(table.start);
  reader.end = map.MapOffset(table.end - 1) + 1;
  reader.address = static_cast<uint64_t>(map.NewBias(segment));
  reader.need = need;
  return reader;
}

/** Makes room at once: a vector that grows holds its content twice. */
void KnownTables::Reserve(std::vector<Pair>& pairs, const Reader& reader, uint64_t entry) {
  if (reader.end > reader.at) pairs.reserve(static_cast<size_t>(std::min<uint64_t>((reader.end - reader.at) / entry, kMost)));
}

void KnownTables::Begin(const ElfImage& old, AddressMap& map) {
  relocations_.clear();
  frames_.clear();
  has_frames_ = false;
  relative_type_ = old.relative_type;
  relocation_reader_ = old.relative_type != 0 ? Find(old.relocations, 24, old, map) : Reader();
  table_first_ = old.frame_table.start < old.frames.start;
  const Reader table = Find(old.frame_table, kTableHeader, old, map);
  table_address_ = table.at + table.address;
  frame_reader_ = table.need == 0 ? Reader() : table_first_ ? table : Find(old.frames, 12, old, map);
  Reserve(relocations_, relocation_reader_, 24);
  Reserve(frames_, table, 8);
}

template <class Use>
void KnownTables::Feed(Reader& reader, uint64_t position, const uint8_t* bytes, size_t size, const Use& use) {
  const uint64_t limit = std::min(position + size, reader.end);
  if (reader.at < position) return;
  while (reader.at < limit) {
    const uint64_t left = limit - reader.at;
    if (reader.skip > 0) {
      const uint64_t count = std::min(reader.skip, left);
      reader.at += count;
      reader.skip -= count;
      continue;
    }
    const size_t count = static_cast<size_t>(std::min<uint64_t>(reader.need - reader.have, left));
    std::memcpy(reader.record + reader.have, bytes + (reader.at - position), count);
    reader.at += count;
    reader.have += count;
    if (reader.have < reader.need) continue;
    const size_t need = reader.need;
    reader.have = 0;
    use(reader.at - need + reader.address, reader.record);
  }
}

void KnownTables::Take(uint64_t position, const uint8_t* bytes, size_t size) {
  Feed(relocation_reader_, position, bytes, size, [this](uint64_t, const uint8_t* record) { TakeRelocation(record); });
  Feed(frame_reader_, position, bytes, size, [this](uint64_t place, const uint8_t* record) {
    if (table_first_) TakeFrameEntry(record);
    else TakeFrame(place, record);
  });
  if (!has_frames_ && frame_reader_.need != 0 && position + size >= frame_reader_.end) {
    has_frames_ = true;
    std::sort(frames_.begin(), frames_.end());
  }
}

size_t KnownTables::BeforeEnd(uint64_t position, size_t size) const {
  for (const Reader* reader : {&relocation_reader_, &frame_reader_}) {
    if (reader->end > position) size = static_cast<size_t>(std::min<uint64_t>(size, reader->end - position));
  }
  return size;
}

void KnownTables::TakeRelocation(const uint8_t* record) {
  const uint64_t place = Number(record, 8), addend = Number(record + 16, 8);
  if (Number(record + 8, 8) != relative_type_ || place > kMostAddress || addend > kMostAddress || relocations_.size() == kMost) return;
  if (relocations_.empty() || place > relocations_.back().first) relocations_.emplace_back(static_cast<uint32_t>(place), static_cast<uint32_t>(addend));
}

/** The header, or a pair of words that count from it. */
void KnownTables::TakeFrameEntry(const uint8_t* record) {
  constexpr uint8_t kUsual[4] = {1, 0x1b, 3, 0x3b};
  if (frame_reader_.need == kTableHeader) {
    frame_reader_.need = 8;
    if (std::memcmp(record, kUsual, sizeof kUsual) != 0) frame_reader_.end = 0;
    return;
  }
  const uint64_t function = table_address_ + SignedWord(record), frame = table_address_ + SignedWord(record + 4);
  if (function <= kMostAddress && frame <= kMostAddress && frames_.size() < kMost) frames_.emplace_back(static_cast<uint32_t>(frame), static_cast<uint32_t>(function));
}

void KnownTables::TakeFrame(uint64_t place, const uint8_t* record) {
  const uint64_t length = Number(record, 4);
  if (length < 8 || length > 0xffff) {
    frame_reader_.end = 0;
    return;
  }
  frame_reader_.skip = length - 8;
  if (Number(record + 4, 4) == 0) return;
  const uint64_t function = place + 8 + SignedWord(record + 8);
  if (function <= kMostAddress && place <= kMostAddress && frames_.size() < kMost) frames_.emplace_back(static_cast<uint32_t>(function), static_cast<uint32_t>(place));
}

bool KnownTables::Relocated(uint64_t address, size_t& hint, uint64_t& value) const {
  if (relocations_.empty() || address > kMostAddress) return false;
  const auto is_before = [](const Pair& pair, uint64_t place) { return pair.first < place; };
  if (hint > relocations_.size() || (hint > 0 && relocations_[hint - 1].first >= address)) hint = 0;
  if (hint == 0 || (hint < relocations_.size() && relocations_[hint].first < address)) {
    hint = static_cast<size_t>(std::lower_bound(relocations_.begin() + static_cast<std::ptrdiff_t>(hint), relocations_.end(), address, is_before) - relocations_.begin());
  }
  if (hint == relocations_.size() || relocations_[hint].first != address) return false;
  value = relocations_[hint++].second;
  return true;
}

bool KnownTables::FunctionOf(uint64_t frame, uint64_t& function, uint64_t& next) const {
  if (!has_frames_ || !table_first_ || frame > kMostAddress) return false;
  const auto found = std::lower_bound(frames_.begin(), frames_.end(), Pair(static_cast<uint32_t>(frame), 0));
  if (found == frames_.end() || found->first != frame) return false;
  function = found->second;
  next = found + 1 == frames_.end() ? 0 : found[1].second;
  return true;
}

bool KnownTables::FrameEntry(uint64_t index, uint64_t& function, uint64_t& frame) const {
  if (!has_frames_ || table_first_ || index >= frames_.size()) return false;
  function = frames_[static_cast<size_t>(index)].first;
  frame = frames_[static_cast<size_t>(index)].second;
  return true;
}

}  // namespace whittle::codec
