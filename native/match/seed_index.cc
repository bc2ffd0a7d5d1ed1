#include "match/seed_index.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>

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
/** Seeds on their way through memory at a time. */
constexpr size_t kBatch = 64;
constexpr size_t kThreadedText = size_t{4} << 20;

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
      shift_(64 - HashBits(size)), ends_(size_t{1} << HashBits(size)) {
  const uint32_t hashes = static_cast<uint32_t>(ends_.size());
  const uint32_t middle = hashes / 2;
  positions_ = HugeArray<uint32_t>(size);
  const auto count = [this](uint32_t low, uint32_t high, uint32_t* total) {
    std::fill(ends_.data() + low, ends_.data() + high, 0u);
    uint32_t seeds = 0;
    ForEachSeed(low, high, [&](uint32_t, uint32_t hash) { ends_[hash]++; seeds++; });
    *total = seeds;
  };
  uint32_t lower = 0, upper = 0;
  if (threads > 1 && size >= kThreadedText) {
    std::thread other([&] { count(middle, hashes, &upper); });
    count(0, middle, &lower);
    other.join();
    std::thread builder([&] { Build(middle, hashes, lower); });
    Build(0, middle, 0);
    builder.join();
  } else {
    count(0, hashes, &lower);
    Build(0, hashes, 0);
  }
}

uint64_t SeedIndex::SeedHash(const uint8_t* pattern) const { return ((Load64(pattern) & seed_mask_) * 0x9E3779B97F4A7C15u) >> shift_; }

/** Calls visit(position, hash) for the seeds whose hash is in [low, high); of equal ones in a row, as in zeros, for the first. */
template <typename Visit>
void SeedIndex::ForEachSeed(uint32_t low, uint32_t high, Visit visit) const {
  if (size_ < 8) return;
  const size_t end = size_ - 7;
  uint64_t last = ~uint64_t{0};
  uint32_t positions[kBatch], hashes[kBatch];
  size_t filled = 0;
  for (size_t i = 0; i < end; i++) {
    const uint64_t hash = SeedHash(text_ + i);
    const bool wanted = hash != last && hash - low < high - low;
    last = hash;
    if (!wanted) continue;
    __builtin_prefetch(ends_.data() + hash, 1);
    positions[filled] = static_cast<uint32_t>(i);
    hashes[filled] = static_cast<uint32_t>(hash);
    if (++filled < kBatch) continue;
    for (size_t j = 0; j < kBatch; j++) visit(positions[j], hashes[j]);
    filled = 0;
  }
  for (size_t j = 0; j < filled; j++) visit(positions[j], hashes[j]);
}

/** Places the positions of hashes [low, high), which `ends_` counts. */
void SeedIndex::Build(uint32_t low, uint32_t high, uint32_t first_slot) {
  uint32_t sum = first_slot;
  for (uint32_t hash = low; hash < high; hash++) {
    const uint32_t seeds = ends_[hash];
    ends_[hash] = sum;
    sum += seeds;
  }
  uint32_t slots[kBatch], waiting[kBatch];
  size_t filled = 0;
  ForEachSeed(low, high, [&](uint32_t position, uint32_t hash) {
    const uint32_t slot = ends_[hash]++;
    __builtin_prefetch(positions_.data() + slot, 1);
    slots[filled] = slot;
    waiting[filled] = position;
    if (++filled < kBatch) return;
    for (size_t j = 0; j < kBatch; j++) positions_[slots[j]] = waiting[j];
    filled = 0;
  });
  for (size_t j = 0; j < filled; j++) positions_[slots[j]] = waiting[j];
}

SeedIndex::Match SeedIndex::Find(const uint8_t* pattern, size_t available, int64_t expected) const {
  if (available < 8 || size_ < 8) return {0, 0};
  const uint64_t hash = SeedHash(pattern);
  const uint32_t* first = positions_.data() + (hash == 0 ? 0 : ends_[hash - 1]);
  const uint32_t* last = positions_.data() + ends_[hash];
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
