#include "match/suffix_index.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "match/suffix_array.h"

namespace whittle {

namespace {

/** Longer matches are told from each other by nobody: whoever follows one extends it byte by byte. */
constexpr size_t kMatchCap = 4096;
constexpr size_t kWideBucketText = size_t{32} << 20;
constexpr size_t kBucketText = 4096;
constexpr size_t kFilterPrefetch = 24;
/** Suffixes on each side of the longest match's that may match as long and lie nearer. */
constexpr int64_t kNeighbours = 32;

inline uint64_t Load64(const uint8_t* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

int FilterBits(uint64_t size) {
  int bits = 12;
  while (bits < 31 && (uint64_t{1} << bits) < 8 * size) bits++;
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

uint64_t SuffixIndex::MemoryBytes(uint64_t size) {
  const uint64_t buckets = size >= kWideBucketText ? uint64_t{4} << 24 : uint64_t{4} << 16;
  return 4 * size + (uint64_t{1} << FilterBits(size)) / 8 + buckets;
}

SuffixIndex::SuffixIndex(const uint8_t* text, size_t size, size_t seed_length)
    : text_(text), size_(size), seed_length_(seed_length), seed_mask_(seed_length >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * seed_length)) - 1),
      filter_shift_(64 - FilterBits(size)), bucket_bytes_(size >= kWideBucketText ? 3 : size >= kBucketText ? 2 : 0), suffixes_(size) {
  SortSuffixes(text, suffixes_.data(), static_cast<int32_t>(size));
  BuildFilter();
  BuildBuckets();
}

uint64_t SuffixIndex::SeedHash(const uint8_t* pattern) const {
  return ((Load64(pattern) & seed_mask_) * 0x9E3779B97F4A7C15u) >> filter_shift_;
}

void SuffixIndex::BuildFilter() {
  const size_t words = (size_t{1} << (64 - filter_shift_)) / 64;
  filter_ = HugeArray<uint64_t>(words);
  std::memset(filter_.data(), 0, words * sizeof(uint64_t));
  uint8_t tail[16] = {0};
  for (size_t i = 0; i + seed_length_ <= size_; i++) {
    const uint8_t* seed = text_ + i;
    if (i + kFilterPrefetch + 8 <= size_) __builtin_prefetch(filter_.data() + SeedHash(seed + kFilterPrefetch) / 64, 1);
    if (i + 8 > size_) seed = static_cast<const uint8_t*>(std::memcpy(tail, text_ + i, size_ - i));
    const uint64_t hash = SeedHash(seed);
    filter_[hash / 64] |= uint64_t{1} << (hash % 64);
  }
}

void SuffixIndex::BuildBuckets() {
  if (bucket_bytes_ == 0) return;
  const size_t count = size_t{1} << (8 * bucket_bytes_);
  buckets_ = HugeArray<int32_t>(count + 1);
  std::fill(buckets_.data(), buckets_.data() + count + 1, 0);
  const auto key = [this](size_t i) {
    const uint32_t first = text_[i];
    const uint32_t second = i + 1 < size_ ? text_[i + 1] : 0;
    const uint32_t third = i + 2 < size_ ? text_[i + 2] : 0;
    return bucket_bytes_ == 2 ? first << 8 | second : first << 16 | second << 8 | third;
  };
  // A suffix shorter than the key sorts first among those that it is filled up with zeros to: it stays in their bucket.
  for (size_t i = 0; i < size_; i++) buckets_[key(i) + 1]++;
  for (size_t c = 0; c < count; c++) buckets_[c + 1] += buckets_[c];
}

bool SuffixIndex::MayContain(const uint8_t* pattern) const {
  const uint64_t hash = SeedHash(pattern);
  return (filter_[hash / 64] >> (hash % 64) & 1) != 0;
}

SuffixIndex::Match SuffixIndex::Find(const uint8_t* pattern, size_t available, int64_t expected) const {
  if (available < 8 || size_ == 0 || !MayContain(pattern)) return {0, 0};
  const size_t cap = std::min(available, kMatchCap);
  int64_t low = 0;
  int64_t high = static_cast<int64_t>(size_);
  if (bucket_bytes_ != 0) {
    const size_t key = bucket_bytes_ == 2 ? size_t{pattern[0]} << 8 | pattern[1] : size_t{pattern[0]} << 16 | size_t{pattern[1]} << 8 | pattern[2];
    low = buckets_[key];
    high = buckets_[key + 1];
  }
  // Suffixes before `low` are smaller than the pattern, those from `high` on are not; each bound's own common prefix is known.
  size_t low_common = 0;
  size_t high_common = 0;
  Match best{0, 0};
  int64_t best_rank = 0;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const size_t position = static_cast<size_t>(suffixes_[static_cast<size_t>(middle)]);
    const size_t limit = std::min(cap, size_ - position);
    size_t common = std::min({low_common, high_common, limit});
    common += CommonPrefix(text_ + position + common, pattern + common, limit - common);
    if (common > best.length) {
      best = {position, common};
      best_rank = middle;
    }
    if (common == cap) break;
    if (common == limit || text_[position + common] < pattern[common]) {
      low = middle + 1;
      low_common = common;
    } else {
      high = middle;
      high_common = common;
    }
  }
  if (best.length < seed_length_) return {0, 0};
  return Nearest(pattern, best, best_rank, expected);
}

SuffixIndex::Match SuffixIndex::Nearest(const uint8_t* pattern, Match best, int64_t rank, int64_t expected) const {
  const auto distance = [expected](size_t position) { return std::llabs(static_cast<long long>(position) - expected); };
  size_t nearest = best.position;
  for (const int step : {-1, 1}) {
    for (int64_t other = rank + step; other >= 0 && other < static_cast<int64_t>(size_) && std::llabs(other - rank) <= kNeighbours; other += step) {
      const size_t position = static_cast<size_t>(suffixes_[static_cast<size_t>(other)]);
      if (size_ - position < best.length || std::memcmp(text_ + position, pattern, best.length) != 0) break;
      if (distance(position) < distance(nearest)) nearest = position;
    }
  }
  return {nearest, best.length};
}

}  // namespace whittle
