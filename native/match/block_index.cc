#include "match/block_index.h"

#include <algorithm>

#include "match/sampler.h"

namespace whittle {

namespace {

// A tag is the 32 bits of a window's hash below its kTagLevel leading zeros: its own leading zeros tell higher levels.
constexpr int kTagLevel = 3;
/** Files below kSmallFile bytes are sampled eight times as densely: they have few windows. */
constexpr int kFineLevel = 3;
constexpr int kCoarseLevel = 6;
constexpr uint64_t kSmallFile = 32 * 1024;
constexpr int kMaxLevel = 24;

constexpr uint32_t kEmptyId = UINT32_MAX;
constexpr size_t kFirstSlots = 4096;
/** What this many files have in common says nothing of any two of them. */
constexpr size_t kMaxFilesPerTag = 8;

// A bit for each wanted byte: small files have a sample in eight, so that few bits are set by chance alone.
constexpr int kMinWantedBits = 16;
constexpr int kMaxWantedBits = 28;

int LevelOf(uint64_t size) { return size < kSmallFile ? kFineLevel : kCoarseLevel; }

int WantedBits(uint64_t wanted_bytes, uint64_t memory_limit_bytes) {
  int bits = kMinWantedBits;
  while (bits < kMaxWantedBits && uint64_t{1} << bits < std::min(wanted_bytes, memory_limit_bytes)) bits++;
  return bits;
}

uint32_t Spread(uint32_t tag) { return tag * 0x9E3779B1u; }

uint32_t TagOf(uint64_t hash) { return static_cast<uint32_t>(hash << kTagLevel >> 32); }

bool HasLevel(uint32_t tag, int level) { return level <= kTagLevel || tag >> (32 - (level - kTagLevel)) == 0; }

}  // namespace

BlockIndex::BlockIndex(uint64_t memory_limit_bytes, uint64_t wanted_bytes)
    : wanted_shift_(32 - WantedBits(wanted_bytes, memory_limit_bytes)),
      // While the table doubles, the old half is still there.
      max_slots_(static_cast<size_t>(std::min<uint64_t>(memory_limit_bytes / (sizeof(Entry) * 3 / 2), uint64_t{1} << 31))),
      entries_(std::min(kFirstSlots, max_slots_), Entry{0, kEmptyId}),
      level_(kFineLevel) {}

void BlockIndex::Clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Entry>(std::min(kFirstSlots, max_slots_), Entry{0, kEmptyId}).swap(entries_);
  std::vector<uint64_t>().swap(wanted_);
  file_sizes_ = {};
  used_ = 0;
  level_ = kFineLevel;
}

size_t BlockIndex::WantedBit(uint32_t tag) const { return Spread(tag) >> wanted_shift_; }

bool BlockIndex::IsWanted(uint32_t tag) const {
  return wanted_.empty() || (wanted_[WantedBit(tag) / 64] >> WantedBit(tag) % 64 & 1) != 0;
}

size_t BlockIndex::SlotOf(uint32_t tag) const { return static_cast<size_t>(uint64_t{Spread(tag)} * entries_.size() >> 32); }

void BlockIndex::Insert(uint32_t tag, uint32_t id) {
  size_t files = 0;
  size_t slot = SlotOf(tag);
  for (; entries_[slot].id != kEmptyId; slot = slot + 1 == entries_.size() ? 0 : slot + 1) {
    if (entries_[slot].tag != tag) continue;
    if (entries_[slot].id == id || ++files == kMaxFilesPerTag) return;
  }
  entries_[slot] = {tag, id};
  used_++;
}

void BlockIndex::Rebuild(size_t slots) {
  std::vector<Entry> before(slots, Entry{0, kEmptyId});
  before.swap(entries_);
  used_ = 0;
  for (const Entry& entry : before) {
    if (entry.id == kEmptyId) continue;
    const auto file = file_sizes_.find(entry.id);
    const bool is_small = file != file_sizes_.end() && file->second < kSmallFile;
    if (HasLevel(entry.tag, is_small ? level_ : std::max(level_, kCoarseLevel))) Insert(entry.tag, entry.id);
  }
}

void BlockIndex::MakeRoom() {
  if (used_ + 1 < entries_.size() - entries_.size() / 5) return;
  if (entries_.size() < max_slots_) {
    Rebuild(std::min(2 * entries_.size(), max_slots_));
    return;
  }
  while (level_ < kMaxLevel && used_ > entries_.size() / 5 * 3) {
    level_++;
    Rebuild(entries_.size());
  }
}

void BlockIndex::Want(const Content& content) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (wanted_.empty()) wanted_.resize((size_t{1} << (32 - wanted_shift_)) / 64);
  ContentReader reader({content});
  ForEachSample(reader, 0, content.size, LevelOf(content.size), [&](uint64_t, uint64_t hash) {
    const size_t bit = WantedBit(TagOf(hash));
    wanted_[bit / 64] |= uint64_t{1} << bit % 64;
  });
}

void BlockIndex::Add(uint32_t id, const Content& content) {
  const std::lock_guard<std::mutex> lock(mutex_);
  file_sizes_[id] = content.size;
  ContentReader reader({content});
  ForEachSample(reader, 0, content.size, LevelOf(content.size), [&](uint64_t, uint64_t hash) {
    const uint32_t tag = TagOf(hash);
    if (!IsWanted(tag)) return;
    MakeRoom();
    if (HasLevel(tag, level_) && used_ + 1 < entries_.size()) Insert(tag, id);
  });
}

void BlockIndex::CountFiles(uint32_t tag, std::unordered_map<uint32_t, uint64_t>& samples) const {
  uint32_t ids[kMaxFilesPerTag];
  size_t files = 0;
  for (size_t slot = SlotOf(tag); entries_[slot].id != kEmptyId; slot = slot + 1 == entries_.size() ? 0 : slot + 1) {
    if (entries_[slot].tag == tag && files < kMaxFilesPerTag) ids[files++] = entries_[slot].id;
  }
  if (files == kMaxFilesPerTag) return;
  for (size_t i = 0; i < files; i++) samples[ids[i]]++;
}

std::vector<BlockIndex::Candidate> BlockIndex::Query(const Content& content) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<uint64_t>().swap(wanted_);
  const bool is_small = content.size < kSmallFile;
  std::unordered_map<uint32_t, uint64_t> fine;    // samples in common, by file
  std::unordered_map<uint32_t, uint64_t> coarse;  // those of the level that large files have, too
  ContentReader reader({content});
  ForEachSample(reader, 0, content.size, LevelOf(content.size), [&](uint64_t, uint64_t hash) {
    const uint32_t tag = TagOf(hash);
    if (!HasLevel(tag, level_)) return;
    CountFiles(tag, fine);
    if (is_small && HasLevel(tag, kCoarseLevel)) CountFiles(tag, coarse);
  });
  std::vector<Candidate> candidates;
  for (const auto& [id, samples] : fine) {
    const uint64_t size = file_sizes_[id];
    const bool both_small = is_small && size < kSmallFile;
    const auto coarse_samples = coarse.find(id);
    const uint64_t count = both_small || !is_small ? samples : coarse_samples == coarse.end() ? 0 : coarse_samples->second;
    const int level = std::max(level_, both_small ? kFineLevel : kCoarseLevel);
    if (count > 0) candidates.push_back({id, std::min({count << level, size, content.size})});
  }
  const auto is_better = [](const Candidate& a, const Candidate& b) {
    return a.shared_bytes != b.shared_bytes ? a.shared_bytes > b.shared_bytes : a.id < b.id;
  };
  std::sort(candidates.begin(), candidates.end(), is_better);
  if (candidates.size() > kMaxCandidates) candidates.resize(kMaxCandidates);
  return candidates;
}

}  // namespace whittle
