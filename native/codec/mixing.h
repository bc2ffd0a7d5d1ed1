// Probability estimation in integer arithmetic only, so that every machine decodes the same bits.
// Probabilities that a bit is 1 are of 65536; "stretched" values are ln(p / (1 - p)) * 256, within [-2047, 2047].
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "codec/large_allocator.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace whittle::codec {

constexpr int kStretchMax = 2047;

/** Logistic tables, made once from constants. */
struct Tables {
  Tables();
  uint16_t squash[4096];     // of stretched value + 2048
  int16_t stretch[4096];     // of probability / 16
  uint16_t reciprocal[1024]; // 65536 / (n + 1.5)
};
extern const Tables kTables;

inline int Stretch(uint32_t probability) { return kTables.stretch[probability >> 4]; }
inline int ClampStretched(int value) { return value > kStretchMax ? kStretchMax : value < -kStretchMax ? -kStretchMax : value; }
/** From 1 to 65535. */
inline uint32_t Squash(int stretched) { return kTables.squash[stretched + 2048]; }

/** A bit's probability in a context that is used directly: 22 bits of probability, 10 bits of count. */
class AdaptiveBit {
 public:
  AdaptiveBit() = default;
  explicit AdaptiveBit(uint32_t probability, uint32_t count = 0) : state_((probability << 16) | count) {}
  uint32_t probability() const { return (state_ >> 16) | (state_ < 65536); }
  /** Moves towards `bit` by 1 / (times seen + 1.5), at least 1 / (limit + 1.5). */
  void Update(int bit, uint32_t limit) {
    const uint32_t count = state_ & 1023;
    const int32_t value = static_cast<int32_t>(state_ >> 10);
    const int32_t goal = -bit & 4194303;
    const int32_t moved = value + static_cast<int32_t>((static_cast<int64_t>(goal - value) * kTables.reciprocal[count]) >> 16);
    state_ = (static_cast<uint32_t>(moved) << 10) | (count < limit ? count + 1 : count);
  }

 private:
  uint32_t state_ = 0x80000000u;
};

/** Codes one bit with one adaptive probability. */
template <class Coder>
inline int CodeAdaptive(Coder& coder, AdaptiveBit& state, int bit, uint32_t limit) {
  bit = coder.Code(bit, state.probability());
  state.Update(bit, limit);
  return bit;
}

/**
 * What a context has seen of one bit, in a byte: how many zeros and ones of late, and which came last. States are
 * made once by rule (see Histories); 0 has seen nothing.
 */
using History = uint8_t;

/** The transitions of History, and the probability that a fresh map gives each. */
struct Histories {
  Histories();
  History next[256][2];
  uint16_t probability[256];
  uint8_t seen[256];  // how many bits, for deciding what to forget first
};
extern const Histories kHistories;

/** What histories have meant so far, for one input of a mixer: history -> probability, learned. */
class HistoryMap {
 public:
  HistoryMap() {
    for (size_t index = 0; index < 256; index++) Set(states_[index], kHistories.probability[index]);
  }
  int Predict(History history) const { return states_[history].stretched; }
  /** Learns that `history` was followed by `bit`, and appends it. */
  void Update(History& history, int bit) {
    State& state = states_[history];
    Set(state, static_cast<uint16_t>(state.probability + (((-bit & 65535) - state.probability) >> 6)));
    history = kHistories.next[history][bit];
  }

 private:
  /** The stretched probability is kept beside it: a look-up less between a bit and the prediction of the next. */
  struct State {
    uint16_t probability;
    int16_t stretched;
  };
  static void Set(State& state, uint16_t probability) { state = {probability, static_cast<int16_t>(Stretch(probability))}; }

  State states_[256];
};

/** Mixes eight stretched predictions with weights chosen by a small context. */
class Mixer {
 public:
  static constexpr int kInputs = 8;
  struct alignas(16) Inputs {
    int16_t values[kInputs] = {};
  };

  /** `weight` is the first weight of the first `used` inputs, 16384 being one. */
  Mixer(size_t contexts, int used, int16_t weight) : weights_(contexts) {
    for (Inputs& weights : weights_) std::fill(weights.values, weights.values + used, weight);
  }

  /** The weights of a context. */
  Inputs& Weights(size_t context) { return weights_[context]; }
  /** The mixed stretched prediction. */
  static int Mix(const Inputs& inputs, const Inputs& weights);
  /** Learns what the bit was that was predicted as `mixed`. `rate`: 1 slow, 4 quick. */
  static void Update(const Inputs& inputs, Inputs& weights, int mixed, int bit, int rate);

 private:
  std::vector<Inputs> weights_;
};

#if defined(__SSE2__)
/** Inputs go from register to register: a load of 16 bytes right after stores of two each waits until they are in the cache. */
inline __m128i Lanes(const Mixer::Inputs& inputs) {
  const int16_t* const v = inputs.values;
  return _mm_set_epi16(v[7], v[6], v[5], v[4], v[3], v[2], v[1], v[0]);
}
#endif

inline int Mixer::Mix(const Inputs& inputs, const Inputs& weights) {
#if defined(__SSE2__)
  const __m128i products = _mm_madd_epi16(Lanes(inputs),
                                          _mm_load_si128(reinterpret_cast<const __m128i*>(weights.values)));
  const __m128i pairs = _mm_add_epi32(products, _mm_shuffle_epi32(products, 0x4e));
  const int32_t sum = _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0xb1)));
#else
  int32_t sum = 0;
  for (int index = 0; index < kInputs; index++) sum += inputs.values[index] * weights.values[index];
#endif
  return ClampStretched(sum >> 14);
}

inline void Mixer::Update(const Inputs& inputs, Inputs& weights, int mixed, int bit, int rate) {
  // The error is of 32768, at most 15 bits and a sign; inputs have 12 bits, so that a rate of 4 fits 16 bits.
  const int32_t error = ((-bit & 65535) - static_cast<int32_t>(Squash(mixed))) >> 1;
#if defined(__SSE2__)
  const __m128i scaled = _mm_mullo_epi16(Lanes(inputs), _mm_set1_epi16(static_cast<int16_t>(rate * 4)));
  const __m128i moves = _mm_srai_epi16(_mm_add_epi16(_mm_mulhi_epi16(scaled, _mm_set1_epi16(static_cast<int16_t>(error))), _mm_set1_epi16(1)), 1);
  __m128i* moved = reinterpret_cast<__m128i*>(weights.values);
  _mm_store_si128(moved, _mm_adds_epi16(_mm_load_si128(moved), moves));
#else
  for (int index = 0; index < kInputs; index++) {
    const int32_t move = (((inputs.values[index] * rate * 4 * error) >> 16) + 1) >> 1;
    const int32_t weight = weights.values[index] + move;
    weights.values[index] = static_cast<int16_t>(weight > 32767 ? 32767 : weight < -32768 ? -32768 : weight);
  }
#endif
}

/** Refines a probability in a context: interpolates between 33 adaptive points of the stretched prediction. */
class Refiner {
 public:
  explicit Refiner(size_t contexts);

  /** The refined probability; `nearest` is what is to learn the bit. */
  uint32_t Refine(int stretched, size_t context, uint16_t*& nearest) {
    const uint32_t position = static_cast<uint32_t>(stretched + 2048);
    const uint32_t within = position & 127;
    uint16_t* points = &points_[context * 33 + (position >> 7)];
    nearest = points + (within >> 6);
    return ((points[0] * (128 - within) + points[1] * within) >> 7) | 1;
  }

  static void Update(uint16_t* nearest, int bit) {
    const int32_t goal = -bit & 65535;
    *nearest = static_cast<uint16_t>(*nearest + (goal - *nearest) / 64);
  }

 private:
  std::vector<uint16_t> points_;
};

/** A nibble's bits in one hashed context: a check value, then a history for each node of the nibble's binary tree. */
struct NibbleSlot {
  uint8_t check;
  History histories[15];
};

/** A hash table of NibbleSlots, four per cache line; a context may be in any of three, the least used is replaced. */
class NibbleTable {
 public:
  /** `bits`: log2 of the number of slots, at least 2. */
  explicit NibbleTable(int bits);

  /** Asks for the cache line of a context that may be looked for soon. */
  void Expect(uint32_t hash) const { __builtin_prefetch(&slots_[hash >> shift_]); }
  /** Finds or makes the slots of `count` contexts. */
  template <size_t count>
  void Find(const uint32_t* hashes, NibbleSlot** slots) {
    // All cache lines are asked for before the first is waited for.
    for (size_t index = 0; index < count; index++) __builtin_prefetch(&slots_[hashes[index] >> shift_]);
    for (size_t index = 0; index < count; index++) slots[index] = FindOne(hashes[index]);
  }

 private:
  NibbleSlot* FindOne(uint32_t hash) {
    NibbleSlot* slot = &slots_[hash >> shift_];
    return slot->check == static_cast<uint8_t>(hash) ? slot : FindOther(hash);
  }
  NibbleSlot* FindOther(uint32_t hash);

  LargeVector<NibbleSlot> slots_;
  int shift_;
};

inline uint32_t Hash(uint32_t a, uint32_t b) {
  const uint32_t mixed = (a * 0x9e3779b1u) ^ (b * 0x85ebca6bu + 0x27d4eb2fu);
  return (mixed ^ (mixed >> 15)) * 0x2c1b3c6du;
}

}  // namespace whittle::codec
