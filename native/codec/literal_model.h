// Codes bytes that no copy covers: contexts of the bytes before, a match model over recent literals, and the old
// bytes where the copies around would go on.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "codec/mixing.h"
#include "codec/residue_model.h"

namespace whittle::codec {

/** Finds where the recent past last looked like now. */
class MatchModel {
 public:
  static constexpr uint32_t kLong = 32;

  explicit MatchModel(int history_bits)
      : history_(size_t{1} << history_bits), mask_((1u << history_bits) - 1), heads_(size_t{1} << kHeadBits) {}

  /** Forgets the current match: what follows does not follow what came before. */
  void Break() {
    length_ = 0;
    pointer_ = 0;
  }

  bool expects() const { return pointer_ != 0; }
  uint8_t expected() const { return history_[pointer_ & mask_]; }
  /** Bytes that the match has held for; 0 while recovering from a miss. */
  uint32_t length() const { return length_; }
  uint32_t misses() const { return misses_; }

  /** Appends a byte that no match is wanted for. */
  void Insert(uint8_t byte) {
    history_[size_ & mask_] = byte;
    size_++;
    recent_ = recent_ << 8 | byte;
    uint32_t& head = heads_[Hash(static_cast<uint32_t>(recent_), static_cast<uint32_t>(recent_ >> 32) & 0xff) >> (32 - kHeadBits)];
    candidate_ = head;
    head = size_;
  }

  /** Appends a byte and moves the match on. */
  void Append(uint8_t byte) {
    if (pointer_ != 0) {
      if (expected() == byte) {
        if (length_ < 65535) length_++;
        pointer_++;
      } else {
        length_ = 0;
        misses_ = misses_ * 2 + 1;
        pointer_ = (misses_ & 255) == 255 ? 0 : pointer_ + 1;
      }
    }
    Insert(byte);
    if (length_ == 0) Look();
  }

  /** Takes up the match that the last bytes suggest, if they suggest one. */
  void Look() {
    if (candidate_ == 0 || size_ - candidate_ >= mask_) return;
    uint32_t length = 0;
    while (length < kLong && candidate_ > length && history_[(candidate_ - 1 - length) & mask_] == history_[(size_ - 1 - length) & mask_]) length++;
    if (length < 5) return;
    length_ = length;
    pointer_ = candidate_;
    misses_ = 0;
  }

 private:
  static constexpr int kHeadBits = 18;

  std::vector<uint8_t> history_;
  uint32_t mask_;
  std::vector<uint32_t> heads_;
  uint32_t size_ = 1;  // position 0 means none
  uint32_t pointer_ = 0, length_ = 0, misses_ = 0;
  uint32_t candidate_ = 0;  // where the last bytes were before
  uint64_t recent_ = 0;
};

template <class Profile>
class LiteralModel {
 public:
  LiteralModel()
      : table_(Profile::kOrderBits + 3),
        mixer_(8 * 16 * 2, kInputs, 16384 * 5 / 16),
        refiner_(256),
        match_(Profile::kHistoryBits) {}

  void BeginFile(uint32_t kind) {
    kind_ = kind;
    match_.Break();
    word_ = 0;
    window_ = surprises_ = raw_left_ = 0;
    raw_run_ = kShortestRaw;
  }

  /** Old bytes in line with the literal's: those that follow the copy before it, and those that precede the copy after it. */
  struct Neighbours {
    const uint8_t* forward;
    const uint8_t* backward;
  };

  /**
   * Takes note of a stretch of a copy, for matches to come: of its first and last kObserved bytes only, as what is
   * near a literal is most like it. `begins` and `ends`: whether the copy does so with this stretch.
   */
  void Observe(const uint8_t* bytes, size_t size, bool begins, bool ends) {
    const size_t head = begins ? std::min(size, kObserved) : 0;
    const size_t tail = ends ? std::min(size - head, kObserved) : 0;
    for (size_t index = 0; index < head; index++) match_.Insert(bytes[index]);
    for (size_t index = size - tail; index < size; index++) match_.Insert(bytes[index]);
  }

  /** Starts a run of literals. */
  void BeginRun() {
    match_.Break();
    match_.Look();
    word_ = 0;
    forward_hits_ = backward_hits_ = 0;
    run_ = raw_left_ = 0;
  }

  /** Codes `size` bytes (encoder: given, decoder: written) of the run. */
  template <class Coder>
  void Code(Coder& coder, uint8_t* bytes, size_t size, const Neighbours& neighbours, uint64_t position) {
    for (size_t index = 0; index < size; index++) {
      uint8_t* byte = bytes + index;
      if (raw_left_ == 0 && window_++ == kWindow) Judge();
      if (raw_left_ != 0) {
        *byte = CodeRaw(coder, *byte);
        continue;
      }
      forward_ = neighbours.forward[index];
      backward_ = neighbours.backward[index];
      if (match_.length() >= MatchModel::kLong) {
        const uint8_t expected = match_.expected();
        const uint32_t grade = std::min<uint32_t>(match_.length() / 32, 15);
        if (CodeAdaptive(coder, long_[grade], *byte == expected, 250)) {
          *byte = expected;
          Advance(expected);
          continue;
        }
        match_.Break();
      }
      *byte = CodeByte(coder, byte, position + index);
      Advance(*byte);
    }
  }

 private:
  static constexpr size_t kObserved = 1024;
  static constexpr size_t kOrders = Profile::kOrders;
  static constexpr size_t kInputs = kOrders + 3;
  /** What is compressed already cannot be predicted, and modelling it costs a decoder most of its time. */
  static constexpr uint32_t kWindow = 1024, kMostSurprises = kWindow * 8 * 31 / 64, kShortestRaw = 2048, kLongestRaw = 32768;

  /** After each window of modelled bytes: when their bits came as by the toss of a coin, the next bytes are not modelled. */
  void Judge() {
    if (surprises_ > kMostSurprises) {
      raw_left_ = raw_run_;
      raw_run_ = std::min(raw_run_ * 2, kLongestRaw);
      match_.Break();
      word_ = 0;
    } else {
      raw_run_ = kShortestRaw;
    }
    window_ = raw_left_ == 0 ? 1 : 0;
    surprises_ = 0;
  }

  template <class Coder>
  uint8_t CodeRaw(Coder& coder, uint8_t byte) {
    uint32_t coded = 0;
    for (int place = 7; place >= 0; place--) coded = coded * 2 + static_cast<uint32_t>(coder.Code(byte >> place & 1, 32768));
    match_.Insert(static_cast<uint8_t>(coded));
    raw_left_--;
    return static_cast<uint8_t>(coded);
  }

  void Advance(uint8_t byte) {
    match_.Append(byte);
    const bool letter = (byte | 32) >= 'a' && (byte | 32) <= 'z';
    word_ = letter || (byte >= '0' && byte <= '9') || byte >= 128 ? Hash(word_, byte) : 0;
    forward_hits_ = forward_hits_ * 2 + (byte == forward_);
    backward_hits_ = backward_hits_ * 2 + (byte == backward_);
    run_++;
  }

  void Contexts(const uint8_t* byte, uint64_t position, uint32_t* hashes) const {
    const uint32_t c4 = static_cast<uint32_t>(byte[-1]) | static_cast<uint32_t>(byte[-2]) << 8 | static_cast<uint32_t>(byte[-3]) << 16 |
                        static_cast<uint32_t>(byte[-4]) << 24;
    const uint32_t c56 = static_cast<uint32_t>(byte[-5]) | static_cast<uint32_t>(byte[-6]) << 8;
    hashes[0] = Hash(static_cast<uint32_t>(forward_) << 16 | static_cast<uint32_t>(byte[-1]) << 8 | (forward_hits_ & 3), 7);
    hashes[1] = Hash(c4 & 0xffff, 2);
    if (kOrders > 2) {
      hashes[2] = Hash(c4 & 0xffffff, 3);
      hashes[3] = Hash(c4, 0x60000 | c56);
      hashes[4] = kind_ == kText || kind_ == kPyc ? Hash(word_, 0x500 | byte[-1])
                                                  : Hash((c4 & 0xff00) | static_cast<uint32_t>(position & 3), 0x500 | backward_);
    }
  }

  /** How far to trust a byte expected from the old file, as a context. */
  size_t Trust(uint32_t hits) const { return (hits & 15) * 4 + std::min<uint32_t>(run_, 3); }

  template <class Coder>
  uint8_t CodeByte(Coder& coder, const uint8_t* byte, uint64_t position) {
    uint32_t hashes[5];
    Contexts(byte, position, hashes);
    const uint32_t high = CodeNibble(coder, hashes, 1, *byte >> 4);
    for (size_t index = 0; index < kOrders; index++) hashes[index] = Hash(hashes[index], high);
    return static_cast<uint8_t>(CodeNibble(coder, hashes, high, *byte & 15));
  }

  /** A prediction of the next bit from an expected byte, when the bits so far agree with it. */
  struct Guess {
    AdaptiveBit* state = nullptr;
    int bit = 0;
    int16_t Input(AdaptiveBit* chosen, uint8_t expected, uint32_t node, int place) {
      if ((expected | 256u) >> (place + 1) != node) return 0;
      state = chosen;
      bit = (expected >> place) & 1;
      const int stretched = Stretch(chosen->probability());
      return static_cast<int16_t>(bit ? stretched : -stretched);
    }
    void Update(int actual) {
      if (state != nullptr) state->Update(bit == actual, 250);
    }
  };

  /** Codes four bits; `node` is 1 and the bits of the byte before them. Returns the node after. */
  template <class Coder>
  uint32_t CodeNibble(Coder& coder, const uint32_t* hashes, uint32_t node, uint32_t value) {
    NibbleSlot* slots[kOrders];
    table_.template Find<kOrders>(hashes, slots);
    const int base = node == 1 ? 4 : 0;
    uint32_t within = 1;
    for (int place = 3; place >= 0; place--) {
      Mixer::Inputs inputs;
      for (size_t index = 0; index < kOrders; index++) inputs.values[index] = static_cast<int16_t>(maps_[index].Predict(slots[index]->histories[within - 1]));
      Guess guesses[3];
      inputs.values[kOrders] = guesses[0].Input(&forward_trust_[Trust(forward_hits_)], forward_, node, base + place);
      inputs.values[kOrders + 1] = guesses[1].Input(&backward_trust_[Trust(backward_hits_)], backward_, node, base + place);
      inputs.values[kOrders + 2] = match_.expects() ? guesses[2].Input(&match_trust_[MatchGrade()], match_.expected(), node, base + place) : int16_t{0};
      const size_t selected = (guesses[2].state == nullptr ? 0 : match_.length() == 0 ? 1 : match_.length() < 16 ? 2 : 3) * 4 +
                              (guesses[0].state != nullptr) * 2 + (guesses[1].state != nullptr);
      const int mixed = mixer_.Mix(inputs, (selected * 8 + static_cast<size_t>(base + place)) * 2 + (kind_ == kText));
      const uint32_t refined = refiner_.Refine(mixed, node);
      const uint32_t probability = (Squash(mixed) + refined + 1) >> 1;
      const int bit = coder.Code(static_cast<int>(value >> place) & 1, probability);
      surprises_ += (probability >= 32768) != (bit != 0);
      mixer_.Update(inputs, bit, 1);
      refiner_.Update(bit);
      for (Guess& guess : guesses) guess.Update(bit);
      for (size_t index = 0; index < kOrders; index++) maps_[index].Update(slots[index]->histories[within - 1], bit);
      node = node * 2 + static_cast<uint32_t>(bit);
      within = within * 2 + static_cast<uint32_t>(bit);
    }
    return node;
  }

  size_t MatchGrade() const {
    const uint32_t length = match_.length();
    return length == 0 ? std::min<uint32_t>(match_.misses() & 7, 7) : 8 + std::min<uint32_t>(length < 16 ? length : 16 + length / 8, 47);
  }

  NibbleTable table_;
  std::array<HistoryMap, kOrders> maps_;
  Mixer mixer_;
  Refiner refiner_;
  MatchModel match_;
  std::array<AdaptiveBit, 64> forward_trust_, backward_trust_, match_trust_;
  std::array<AdaptiveBit, 16> long_;
  uint32_t kind_ = 0, word_ = 0, forward_hits_ = 0, backward_hits_ = 0, run_ = 0;
  uint32_t window_ = 0, surprises_ = 0, raw_left_ = 0, raw_run_ = kShortestRaw;
  uint8_t forward_ = 0, backward_ = 0;
};

}  // namespace whittle::codec
