// What bytes cost that no copy covers, so that the aligner can weigh literals against copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace whittle {

/**
 * Estimates the cost of each literal from what the file was like until then: the symbol last seen in contexts of several
 * lengths, longest first, and how often such guesses were right. Integers only. Far cheaper than the entropy coder's
 * model, and it sees the bytes that might become literals.
 */
class LiteralCost {
 public:
  LiteralCost();

  /** The cost of bytes[position] in 1/16 bit; learns from it. Positions ascend. */
  int Next(const uint8_t* bytes, size_t position);

 private:
  static constexpr int kOrders = 4;
  static constexpr int kTableBits = 14;
  static constexpr int kConfidences = 4;

  struct Guess {
    uint8_t symbol;
    uint8_t confidence;  // 0 when unused
    uint16_t check;
  };

  std::vector<Guess> guesses_[kOrders];
  uint16_t hit_[kOrders][kConfidences + 1];  // probability of 65536 that a guess is right
  uint16_t frequency_[256];
  uint32_t total_;
};

}  // namespace whittle
