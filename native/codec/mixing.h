// Probability estimation in integer arithmetic only, so that every machine decodes the same bits.
// Probabilities that a bit is 1 are of 65536; "stretched" values are ln(p / (1 - p)) * 256, within [-2047, 2047].
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

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
    const int32_t goal = bit ? 4194303 : 0;
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

/** The history of a bit in a hashed context, in 16 bits: 12 bits of probability, 4 bits of confidence. */
using History = uint16_t;
constexpr History kNewHistory = 2048 << 4;

void UpdateHistory(History& history, int bit);

/** What histories have meant so far, for one input of a mixer: history -> probability, learned. */
class HistoryMap {
 public:
  HistoryMap();
  int Predict(History history) {
    current_ = &states_[((history >> 9) << 4) | (history & 15)];
    return Stretch(current_->probability());
  }
  void Update(int bit) { current_->Update(bit, 255); }

 private:
  std::vector<AdaptiveBit> states_;
  AdaptiveBit* current_;
};

/** Mixes up to kInputs stretched predictions with weights chosen by a small context. */
template <int kInputs>
class Mixer {
 public:
  /** `shift` is the learning rate (16 quick, 18 slow), `weight` the first weight, 65536 being one. */
  Mixer(size_t contexts, int shift, int32_t weight) : weights_(contexts * kInputs, weight), shift_(shift) {}

  /** The mixed stretched prediction. */
  int Mix(const int32_t* inputs, size_t context) {
    chosen_ = &weights_[context * kInputs];
    int64_t sum = 0;
    for (int index = 0; index < kInputs; index++) sum += static_cast<int64_t>(inputs[index]) * chosen_[index];
    const int64_t mixed = sum >> 16;
    stretched_ = mixed > kStretchMax ? kStretchMax : mixed < -kStretchMax ? -kStretchMax : static_cast<int>(mixed);
    return stretched_;
  }

  void Update(const int32_t* inputs, int bit) {
    const int32_t error = (bit ? 65535 : 0) - static_cast<int32_t>(Squash(stretched_));
    const int32_t round = 1 << (shift_ - 1);
    for (int index = 0; index < kInputs; index++) {
      const int32_t weight = chosen_[index] + ((inputs[index] * error + round) >> shift_);
      chosen_[index] = weight > kMaxWeight ? kMaxWeight : weight < -kMaxWeight ? -kMaxWeight : weight;
    }
  }

 private:
  static constexpr int32_t kMaxWeight = 8 << 16;
  std::vector<int32_t> weights_;
  int32_t* chosen_ = nullptr;
  int stretched_ = 0;
  int shift_;
};

/** Refines a probability in a context: interpolates between 33 adaptive points of the stretched prediction. */
class Refiner {
 public:
  explicit Refiner(size_t contexts);
  /** The refined probability. */
  uint32_t Refine(int stretched, size_t context);
  void Update(int bit);

 private:
  std::vector<uint16_t> points_;
  uint16_t* nearest_ = nullptr;
};

/** Sixteen histories of one nibble's bits in one hashed context: a check value, then the binary tree of the nibble. */
struct NibbleSlot {
  uint16_t check;
  History histories[15];
};

/** A hash table of NibbleSlots, two per cache line; the less used of two is replaced. */
class NibbleTable {
 public:
  /** `bits`: log2 of the number of slots, at least 1. */
  explicit NibbleTable(int bits);
  /** Address bits for Find, also worth prefetching. */
  void Prefetch(uint32_t hash) const { __builtin_prefetch(&slots_[Index(hash)]); }
  NibbleSlot* Find(uint32_t hash);

 private:
  struct Release {
    void operator()(void* memory) const { std::free(memory); }
  };
  size_t Index(uint32_t hash) const { return hash >> shift_; }
  std::unique_ptr<NibbleSlot[], Release> slots_;
  int shift_;
};

inline uint32_t Hash(uint32_t a, uint32_t b) {
  const uint32_t mixed = (a * 0x9e3779b1u) ^ (b * 0x85ebca6bu + 0x27d4eb2fu);
  return (mixed ^ (mixed >> 15)) * 0x2c1b3c6du;
}

}  // namespace whittle::codec
