#include "match/seed_index.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "match/in_parallel.h"

namespace whittle {

namespace {

/** Longer matches are told from each other by nobody: whoever follows one extends it byte by byte. */
constexpr size_t kMatchCap = 4096;
constexpr int kMinHashBits = 8;
constexpr int kMaxHashBits = 24;
/** Places before and after the expected one that are looked at. */
constexpr size_t kNeighbours = 48;
/** Places among all others that are looked at besides: in what repeats itself the nearest ones may all end soon. */
constexpr size_t kStrays = 16;
constexpr size_t kThreadedText = size_t{4} << 20;
/** So many positions of a region are put in order within the processor's cache … */
constexpr uint64_t kRegionPositions = uint64_t{1} << 16;
/** … of so many regions at most, to each of which positions are written in turn. */
constexpr int kMaxRegionBits = 10;
/** Positions that are put in order in a copy of them. */
constexpr size_t kMaxCopiedPositions = size_t{1} << 20;
/** How far ahead the text of a position is asked for. */
constexpr size_t kAhead = 16;

inline uint64_t Load64(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

int HashBits(uint64_t size) {
  int bits = kMinHashBits;
  while (bits < kMaxHashBits && (uint64_t{1} << bits) < size) bits++;
  return bits;
}

int RegionBits(uint64_t size) {
  int bits = 0;
  while (bits < kMaxRegionBits && (size >> bits) > kRegionPositions) bits++;
  return bits;
}

}  // namespace

size_t CommonPrefix(const uint8_t* a, const uint8_t* b, size_t limit) {
  size_t length = 0;
  while (length + 8 <= limit) {
    const uint64_t difference = Load64(a + length) ^ Load64(b + length);
    if (difference != 0) return length + static_cast<size_t>(__builtin_ctzll(difference)) / 8;
    length += 8;
  }
  while (length < limit && a[length] == b[length]) length++;
  return length;
}

uint64_t SeedIndex::MemoryBytes(uint64_t size) { return 4 * size + (uint64_t{4} << HashBits(size)); }

SeedIndex::SeedIndex(const uint8_t* text, size_t size, size_t seed_length, int threads)
    : text_(text), size_(size), seed_length_(seed_length), seed_mask_(seed_length >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * seed_length)) - 1),
      shift_(64 - HashBits(size)), region_shift_(HashBits(size) - RegionBits(size)), groups_((size_t{1} << HashBits(size)) / Group::kHashes + 1) {
  Build(size >= kThreadedText ? threads : 1);
}

uint32_t SeedIndex::SeedHash(const uint8_t* pattern) const { return static_cast<uint32_t>(((Load64(pattern) & seed_mask_) * 0x9E3779B97F4A7C15u) >> shift_); }

/** Calls visit(position, hash) for the seeds from `from` to `to`; of equal ones in a row, as in zeros, for the first. */
template <typename Visit>
void SeedIndex::ForEachSeed(size_t from, size_t to, Visit visit) const {
  if (size_ < 8) return;
  uint64_t last = from == 0 ? ~uint64_t{0} : SeedHash(text_ + from - 1);
  for (size_t i = from, end = std::min(to, size_ - 7); i < end; i++) {
    const uint32_t hash = SeedHash(text_ + i);
    if (hash != last) visit(static_cast<uint32_t>(i), hash);
    last = hash;
  }
}

/** Puts the positions of one region after the other in order: they come ascending, and leave by hash. */
class SeedIndex::RegionSorter {
 public:
  explicit RegionSorter(SeedIndex& index) : index_(index), next_(size_t{1} << index.region_shift_) {}

  void Sort(uint32_t region, uint32_t start, uint32_t end) {
    std::fill(next_.begin(), next_.end(), 0u);
    seeds_.clear();
    const uint32_t first_hash = region << index_.region_shift_;
    const bool copied = end - start <= kMaxCopiedPositions;
    const uint32_t* const positions = index_.positions_.data();
    for (uint32_t i = start; i < end; i++) {
      __builtin_prefetch(index_.text_ + positions[std::min<size_t>(i + kAhead, end - 1)]);
      const Seed seed{positions[i], index_.SeedHash(index_.text_ + positions[i]) - first_hash};
      next_[seed.hash]++;
      if (copied) seeds_.push_back(seed);
    }
    Sum(first_hash, start);
    if (copied) {
      for (const Seed& seed : seeds_) Place(seed);
      return;
    }
    // What repeats itself fills one region. The text says where its positions are while others are written over them.
    index_.ForEachSeed(0, index_.size_, [&](uint32_t position, uint32_t hash) {
      if (hash >> index_.region_shift_ == region) Place({position, hash - first_hash});
    });
  }

 private:
  struct Seed {
    uint32_t position;
    uint32_t hash;  // within the region
  };

  void Place(const Seed& seed) { index_.positions_[next_[seed.hash]++] = seed.position; }

  /** Makes the groups, and of the count of each hash the place of its first position. */
  void Sum(uint32_t first_hash, uint32_t sum) {
    for (uint32_t hash = 0; hash < next_.size(); hash++) {
      Group& group = index_.groups_[(first_hash + hash) / Group::kHashes];
      if (hash % Group::kHashes == 0) group.start = sum;
      const uint32_t count = next_[hash];
      next_[hash] = sum;
      sum += count;
      group.ends[hash % Group::kHashes] = static_cast<uint8_t>(std::min<uint32_t>(sum - group.start, Group::kFar));
    }
  }

  SeedIndex& index_;
  std::vector<uint32_t> next_;  // by hash within the region
  std::vector<Seed> seeds_;
};

void SeedIndex::Build(int threads) {
  const std::vector<uint32_t> starts = Scatter(threads);
  const uint32_t regions = static_cast<uint32_t>(starts.size() - 1);
  std::atomic<uint32_t> next{0};
  InParallel(threads, [&] {
    RegionSorter sorter(*this);
    for (uint32_t region = next++; region < regions; region = next++) sorter.Sort(region, starts[region], starts[region + 1]);
  });
  groups_[groups_.size() - 1].start = starts.back();
}

/** Writes the positions region by region, ascending within each. Returns where each region starts, and where the last ends. */
std::vector<uint32_t> SeedIndex::Scatter(int threads) {
  const size_t parts = static_cast<size_t>(threads), regions = size_t{1} << (64 - shift_ - region_shift_);
  std::vector<std::vector<uint32_t>> next(parts, std::vector<uint32_t>(regions));
  const auto for_each_part = [&](const auto& visit) {
    std::atomic<size_t> part{0};
    InParallel(threads, [&] {
      for (size_t at = part++; at < parts; at = part++) {
        uint32_t* const own = next[at].data();
        ForEachSeed(size_ * at / parts, size_ * (at + 1) / parts, [&](uint32_t position, uint32_t hash) { visit(position, own[hash >> region_shift_]++); });
      }
    });
  };
  for_each_part([](uint32_t, uint32_t) {});
  std::vector<uint32_t> starts(regions + 1);
  uint32_t sum = 0;
  for (size_t region = 0; region < regions; region++) {
    starts[region] = sum;
    for (std::vector<uint32_t>& own : next) {
      const uint32_t count = own[region];
      own[region] = sum;
      sum += count;
    }
  }
  starts[regions] = sum;
  positions_ = HugeArray<uint32_t>(sum);
  for_each_part([&](uint32_t position, uint32_t place) { positions_[place] = position; });
  return starts;
}

/** The positions of a hash. Those beyond what its group counts are found by their own hashes. */
SeedIndex::Places SeedIndex::PlacesOf(uint32_t hash) const {
  const Group* const group = &groups_[hash / Group::kHashes];
  const uint32_t at = hash % Group::kHashes;
  const uint32_t* const start = positions_.data() + group->start;
  const uint8_t from = at == 0 ? uint8_t{0} : group->ends[at - 1], to = group->ends[at];
  Places places{start + from, start + to};
  if (to < Group::kFar) return places;
  const uint32_t* const end = positions_.data() + group[1].start;
  if (from == Group::kFar) places.first = std::partition_point(places.first, end, [&](uint32_t position) { return SeedHash(text_ + position) < hash; });
  places.last = std::partition_point(places.first, end, [&](uint32_t position) { return SeedHash(text_ + position) == hash; });
  return places;
}

SeedIndex::Match SeedIndex::Find(const uint8_t* pattern, size_t available, int64_t expected) const {
  if (available < 8 || size_ < 8) return {0, 0};
  auto [first, last] = PlacesOf(SeedHash(pattern));
  uint32_t places[2 * kNeighbours + kStrays];
  size_t count = 0;
  if (static_cast<size_t>(last - first) > 2 * kNeighbours) {
    for (size_t stray = 0; stray < kStrays; stray++) places[count++] = first[static_cast<size_t>(last - first) * stray / kStrays];
    const uint32_t aim = static_cast<uint32_t>(std::clamp<int64_t>(expected, 0, static_cast<int64_t>(size_)));
    const uint32_t* nearest = std::lower_bound(first, last, aim);
    if (nearest - first > static_cast<ptrdiff_t>(kNeighbours)) first = nearest - kNeighbours;
    if (last - nearest > static_cast<ptrdiff_t>(kNeighbours)) last = nearest + kNeighbours;
  }
  count = static_cast<size_t>(std::copy(first, last, places + count) - places);
  for (size_t i = 0; i < count; i++) __builtin_prefetch(text_ + places[i]);
  return Longest(pattern, std::min(available, kMatchCap), places, count, expected);
}

SeedIndex::Match SeedIndex::Longest(const uint8_t* pattern, size_t cap, const uint32_t* places, size_t count, int64_t expected) const {
  Match best{0, 0};
  int64_t best_distance = 0;
  for (size_t i = 0; i < count; i++) {
    const size_t position = places[i];
    const size_t common = CommonPrefix(text_ + position, pattern, std::min(cap, size_ - position));
    if (common < seed_length_ || common < best.length) continue;
    const int64_t distance = std::llabs(static_cast<long long>(position) - expected);
    if (common == best.length && distance >= best_distance) continue;
    best = {position, common};
    best_distance = distance;
  }
  return best;
}

}  // namespace whittle
