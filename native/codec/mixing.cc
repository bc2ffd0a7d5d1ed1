#include "codec/mixing.h"

namespace whittle::codec {

namespace {

// 65536 / (1 + exp(-x)) for x = -8, -7.5, ... 8.
constexpr uint16_t kLogistic[33] = {22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
                                    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
                                    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

}  // namespace

const Tables kTables;

Tables::Tables() {
  for (int value = -2048; value < 2048; value++) {
    const int clamped = ClampStretched(value);
    const int index = (clamped + 2048) >> 7;
    const int within = (clamped + 2048) & 127;
    squash[value + 2048] = static_cast<uint16_t>((kLogistic[index] * (128 - within) + kLogistic[index + 1] * within + 64) >> 7);
  }
  int value = -kStretchMax;
  for (int index = 0; index < 4096; index++) {
    while (value < kStretchMax && squash[value + 2048] < index * 16 + 8) value++;
    stretch[index] = static_cast<int16_t>(value);
  }
  for (int count = 0; count < 1024; count++) reciprocal[count] = static_cast<uint16_t>(131072 / (2 * count + 3));
}

namespace {

/** Counts of zeros and ones that a History stands for, and the last bit. */
struct Counts {
  int zeros, ones, last;
};

/** The most of one bit that is remembered beside so many of the other. */
int Bound(int other) {
  static constexpr int kBounds[] = {42, 26, 12, 8, 6, 5};
  return kBounds[other];
}

Counts Append(Counts counts, int bit) {
  int& same = bit ? counts.ones : counts.zeros;
  int& other = bit ? counts.zeros : counts.ones;
  // What came long before counts less once it is contradicted.
  if (other > 5) other = other > 20 ? 5 : other > 10 ? 4 : 3;
  else if (other > 2) other--;
  if (same < Bound(other)) same++;
  counts.last = counts.zeros > 0 && counts.ones > 0 && counts.zeros + counts.ones < 6 ? bit : counts.zeros == 0 && counts.ones > 0;
  return counts;
}

}  // namespace

const Histories kHistories;

Histories::Histories() {
  std::vector<Counts> states{{0, 0, 0}};
  for (size_t index = 0; index < states.size(); index++) {
    for (int bit = 0; bit < 2; bit++) {
      const Counts wanted = Append(states[index], bit);
      size_t found = 0;
      while (found < states.size() && (states[found].zeros != wanted.zeros || states[found].ones != wanted.ones || states[found].last != wanted.last)) found++;
      if (found == states.size()) states.push_back(wanted);
      next[index][bit] = static_cast<History>(found);
    }
  }
  for (size_t index = 0; index < 256; index++) {
    const Counts counts = index < states.size() ? states[index] : Counts{0, 0, 0};
    const int all = counts.zeros + counts.ones;
    probability[index] = static_cast<uint16_t>((counts.ones * 5 + 2) * 65535 / (all * 5 + 4));
    seen[index] = static_cast<uint8_t>(all);
    if (index >= states.size()) next[index][0] = next[index][1] = 0;
  }
}

Refiner::Refiner(size_t contexts) : points_(contexts * 33) {
  for (size_t index = 0; index < points_.size(); index++) points_[index] = kLogistic[index % 33];
}

// Aligned by their allocator, so that all slots that a hash may be in share one cache line.
NibbleTable::NibbleTable(int bits) : slots_(size_t{1} << bits), shift_(32 - bits) {}

NibbleSlot* NibbleTable::FindOther(uint32_t hash) {
  const uint8_t check = static_cast<uint8_t>(hash);
  const size_t index = hash >> shift_;
  NibbleSlot* least = &slots_[index];
  for (size_t way = 1; way < 3; way++) {
    NibbleSlot* slot = &slots_[index ^ way];
    if (slot->check == check) return slot;
    if (kHistories.seen[slot->histories[0]] < kHistories.seen[least->histories[0]]) least = slot;
  }
  std::memset(static_cast<void*>(least), 0, sizeof(NibbleSlot));
  least->check = check;
  return least;
}

}  // namespace whittle::codec
