#include "codec/mixing.h"

#include <new>

namespace whittle::codec {

namespace {

// 65536 / (1 + exp(-x)) for x = -8, -7.5, ... 8.
constexpr uint16_t kLogistic[33] = {22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
                                    4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
                                    62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

// 65536 / (n + 1.6), slowing down to 1 / 20 as confidence grows.
constexpr int32_t kHistoryRate[16] = {40960, 25206, 18204, 14246, 11703, 9929, 8623, 7620,
                                      6826,  6182,  5650,  5201,  4818,  4369, 3855, 3449};

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

void UpdateHistory(History& history, int bit) {
  const int32_t probability = history >> 4;
  int32_t confidence = history & 15;
  const int32_t goal = bit ? 4095 : 0;
  const int32_t moved = probability + (((goal - probability) * kHistoryRate[confidence] + 32768) >> 16);
  const bool surprised = bit ? probability < 1024 : probability >= 3072;
  if (surprised && confidence > 5) confidence = 5 + (confidence - 5) / 4;
  else if (confidence < 15) confidence++;
  history = static_cast<History>((moved << 4) | confidence);
}

HistoryMap::HistoryMap() : states_(2048) {
  for (uint32_t index = 0; index < 2048; index++) {
    states_[index] = AdaptiveBit((index >> 4) * 512 + 256, 6);
  }
  current_ = &states_[0];
}

Refiner::Refiner(size_t contexts) : points_(contexts * 33) {
  for (size_t index = 0; index < points_.size(); index++) points_[index] = kLogistic[index % 33];
}

uint32_t Refiner::Refine(int stretched, size_t context) {
  const int position = stretched + 2048;
  const int low = position >> 7;
  const int within = position & 127;
  uint16_t* points = &points_[context * 33 + static_cast<size_t>(low)];
  nearest_ = points + (within >= 64);
  const uint32_t refined = (points[0] * static_cast<uint32_t>(128 - within) + points[1] * static_cast<uint32_t>(within)) >> 7;
  return refined == 0 ? 1 : refined;
}

void Refiner::Update(int bit) {
  const int32_t goal = bit ? 65535 : 0;
  *nearest_ = static_cast<uint16_t>(*nearest_ + (goal - *nearest_) / 64);
}

NibbleTable::NibbleTable(int bits) : shift_(32 - bits) {
  const size_t count = size_t{1} << bits;
  // Aligned, so that both slots that a hash may be in share one cache line.
  slots_.reset(static_cast<NibbleSlot*>(std::aligned_alloc(64, count * sizeof(NibbleSlot))));
  if (!slots_) throw std::bad_alloc();
  for (size_t index = 0; index < count; index++) {
    slots_[index].check = 0;
    for (History& history : slots_[index].histories) history = kNewHistory;
  }
}

NibbleSlot* NibbleTable::Find(uint32_t hash) {
  const uint16_t check = static_cast<uint16_t>(hash);
  NibbleSlot* first = &slots_[Index(hash)];
  if (first->check == check) return first;
  NibbleSlot* second = &slots_[Index(hash) ^ 1];
  if (second->check == check) return second;
  NibbleSlot* replaced = (first->histories[0] & 15) <= (second->histories[0] & 15) ? first : second;
  replaced->check = check;
  for (History& history : replaced->histories) history = kNewHistory;
  return replaced;
}

}  // namespace whittle::codec
