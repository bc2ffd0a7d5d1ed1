#include "match/region_finder.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "match/sampler.h"

namespace whittle {

namespace {

constexpr uint64_t kMinGranule = 16 * 1024;
constexpr size_t kProbes = 8;
constexpr uint64_t kMaxHole = 64;  // granules

uint64_t Mix(uint64_t hash) {
  hash ^= hash >> 32;
  hash *= 0xD6E8FEB86659FD93u;
  return hash ^ hash >> 32;
}

/**
 * Adds, with one vote each, the granules between others that are not far apart and those beside them: content that changed
 * everywhere, as code does whose addresses moved, has no window in common and yet lies where its neighbours lie.
 */
void FillHoles(std::vector<std::pair<uint64_t, uint64_t>>& ranked, uint64_t granules) {
  std::vector<uint64_t> voted;
  for (const auto& entry : ranked) voted.push_back(entry.second);
  std::sort(voted.begin(), voted.end());
  for (size_t i = 0; i < voted.size(); i++) {
    const uint64_t next = i + 1 < voted.size() ? voted[i + 1] : granules;
    const uint64_t hole = next - voted[i] - 1;
    const bool is_last = i + 1 == voted.size();
    if (i == 0 && voted[0] > 0) ranked.push_back({1, voted[0] - 1});
    if (hole <= kMaxHole && !is_last) {
      for (uint64_t granule = voted[i] + 1; granule < next; granule++) ranked.push_back({1, granule});
    } else if (hole > 0) {
      ranked.push_back({1, voted[i] + 1});
      if (!is_last) ranked.push_back({1, next - 1});
    }
  }
}

}  // namespace

RegionFinder::RegionFinder(ContentReader& source, uint64_t table_bytes) : source_(source), level_(4), slot_shift_(64 - 10) {
  while (sizeof(Entry) << (64 - slot_shift_ + 1) <= table_bytes && slot_shift_ > 24) slot_shift_--;
  const uint64_t slots = uint64_t{1} << (64 - slot_shift_);
  while (source.size() >> level_ > slots / 2) level_++;
  granule_bytes_ = kMinGranule;
  while (source.size() / granule_bytes_ >= (uint64_t{1} << 24)) granule_bytes_ *= 2;
  entries_ = HugeArray<Entry>(static_cast<size_t>(slots));
  std::memset(static_cast<void*>(entries_.data()), 0, entries_.size() * sizeof(Entry));
  ForEachSample(source, 0, source.size(), level_, [&](uint64_t end, uint64_t hash) {
    const uint64_t mixed = Mix(hash);
    const uint32_t tag = static_cast<uint32_t>(mixed);
    const uint32_t granule = static_cast<uint32_t>((end - 1) / granule_bytes_) + 1;
    // Within the first probes or not at all: what is in many places tells nothing of where to look.
    for (size_t probe = 0, slot = static_cast<size_t>(mixed >> slot_shift_); probe < kProbes; probe++, slot = (slot + 1) % entries_.size()) {
      if (entries_[slot].granule == 0) {
        entries_[slot] = {tag, granule};
        break;
      }
      if (entries_[slot].tag == tag && entries_[slot].granule == granule) break;
    }
  });
}

std::vector<Region> RegionFinder::Find(ContentReader& target, uint64_t from, uint64_t to, uint64_t expected, uint64_t budget_bytes) {
  std::unordered_map<uint64_t, uint64_t> votes;
  ForEachSample(target, from, to, level_, [&](uint64_t, uint64_t hash) {
    const uint64_t mixed = Mix(hash);
    const uint32_t tag = static_cast<uint32_t>(mixed);
    for (size_t probe = 0, slot = static_cast<size_t>(mixed >> slot_shift_); probe < kProbes; probe++, slot = (slot + 1) % entries_.size()) {
      if (entries_[slot].granule == 0) break;
      if (entries_[slot].tag == tag) votes[entries_[slot].granule - 1] += 4;
    }
  });
  const uint64_t granules = (source_.size() + granule_bytes_ - 1) / granule_bytes_;
  // Where the slice before left off is as good a guess as any, and content moves by less than a granule more often than not.
  const uint64_t expected_granules = std::min((to - from) / granule_bytes_ + 1, budget_bytes / granule_bytes_ * 3 / 4);
  for (uint64_t i = 0; i < expected_granules && expected / granule_bytes_ + i < granules; i++) votes[expected / granule_bytes_ + i] += 2;
  std::vector<std::pair<uint64_t, uint64_t>> ranked;  // votes, granule
  for (const auto& [granule, count] : votes) ranked.push_back({count, granule});
  FillHoles(ranked, granules);
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  std::vector<uint64_t> chosen;
  for (const auto& entry : ranked) {
    if ((chosen.size() + 1) * granule_bytes_ > budget_bytes) break;
    chosen.push_back(entry.second);
  }
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  std::vector<Region> regions;
  for (const uint64_t granule : chosen) {
    const uint64_t start = granule * granule_bytes_;
    const uint64_t length = std::min(granule_bytes_, source_.size() - start);
    if (!regions.empty() && regions.back().start + regions.back().length == start) regions.back().length += length;
    else regions.push_back({start, length});
  }
  return regions;
}

}  // namespace whittle
