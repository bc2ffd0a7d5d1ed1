// Picks positions of a byte stream by content, so that equal stretches are sampled at equal places wherever they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/content.h"
#include "match/huge_array.h"

namespace whittle {

constexpr size_t kSampleWindow = 32;

/**
 * Rolling polynomial hash, modulo 2^64, of the last kSampleWindow bytes. A window is a sample of level n when the
 * top n bits of its hash are zeros: one in 2^n is, and the samples of a level are among those of each level below.
 */
class WindowHash {
 public:
  static constexpr uint64_t kBase = 0xD6E8FEB86659FD93u;

  WindowHash() {
    for (size_t i = 0; i < kSampleWindow; i++) out_factor_ *= kBase;
  }

  void Enter(uint8_t in) { hash_ = hash_ * kBase + Value(in); }
  void Roll(uint8_t out, uint8_t in) { hash_ = hash_ * kBase + Value(in) - Value(out) * out_factor_; }
  uint64_t value() const { return hash_; }
  void Reset() { hash_ = 0; }

 private:
  // Spread, and never zero: a run of zeros would have the hash 0, which is a sample of every level.
  static uint64_t Value(uint8_t byte) { return (byte + 1u) * 0x9E3779B97F4A7C15u; }

  uint64_t hash_ = 0;
  uint64_t out_factor_ = 1;
};

/**
 * Calls visit(end, hash) for every window of `reader` within [from, to) whose hash has `level` leading zero bits;
 * `end` is the position after it. Of windows with the same hash one after the other only the first is visited.
 */
template <typename Visit>
void ForEachSample(ContentReader& reader, uint64_t from, uint64_t to, int level, Visit visit) {
  constexpr size_t kChunk = size_t{1} << 20;
  if (to - from < kSampleWindow) return;
  const uint64_t threshold = uint64_t{1} << (64 - level);
  HugeArray<uint8_t> buffer(kSampleWindow + static_cast<size_t>(to - from < kChunk ? to - from : kChunk));
  uint8_t* fresh = buffer.data() + kSampleWindow;
  WindowHash hash;
  uint64_t last = 0;
  uint64_t position = from;
  while (position < to) {
    const size_t count = static_cast<size_t>(to - position < kChunk ? to - position : kChunk);
    reader.Read(position, count, fresh);
    size_t i = 0;
    if (position == from) {
      for (; i + 1 < kSampleWindow; i++) hash.Enter(fresh[i]);
      hash.Enter(fresh[i++]);
      if (hash.value() < threshold) visit(position + i, last = hash.value());
    }
    for (; i < count; i++) {
      hash.Roll(fresh[static_cast<ptrdiff_t>(i) - static_cast<ptrdiff_t>(kSampleWindow)], fresh[i]);
      if (hash.value() < threshold && hash.value() != last) visit(position + i + 1, last = hash.value());
    }
    std::memmove(buffer.data(), buffer.data() + count, kSampleWindow);
    position += count;
  }
}

}  // namespace whittle
