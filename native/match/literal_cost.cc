#include "match/literal_cost.h"

#include <algorithm>

namespace whittle {

namespace {

constexpr int kContextBytes[] = {6, 4, 3, 2};
constexpr uint32_t kFrequencyLimit = 16384;

/** -log2(numerator / 2^16) in 1/16 bit. */
struct CostTable {
  uint8_t cost[4096];
  CostTable() {
    // Integer logarithm: squares the mantissa for each binary digit.
    for (uint32_t i = 0; i < 4096; i++) {
      uint64_t mantissa = 2 * i + 1;  // of 8192
      int exponent = 0;
      while (mantissa < 4096) {
        mantissa *= 2;
        exponent++;
      }
      uint64_t value = mantissa << 19;  // of 2^31, from 2^31 on
      int fraction = 0;
      for (int digit = 0; digit < 4; digit++) {
        value = (value >> 1) * (value >> 1) >> 29;
        fraction *= 2;
        if (value >= uint64_t{1} << 32) {
          fraction++;
          value >>= 1;
        }
      }
      cost[i] = static_cast<uint8_t>(std::max(0, 16 * (exponent + 1) - fraction));
    }
  }
};

int Cost(uint32_t probability) {
  static const CostTable table;
  return table.cost[std::min<uint32_t>(probability >> 4, 4095)];
}

}  // namespace

LiteralCost::LiteralCost() : total_(256 * 2) {
  for (auto& table : guesses_) table.assign(size_t{1} << kTableBits, Guess{0, 0, 0});
  for (auto& order : hit_) std::fill(std::begin(order), std::end(order), static_cast<uint16_t>(40000));
  std::fill(std::begin(frequency_), std::end(frequency_), static_cast<uint16_t>(2));
}

int LiteralCost::Next(const uint8_t* bytes, size_t position) {
  const uint8_t symbol = bytes[position];
  int cost = 0;
  bool known = false;
  for (int order = 0; order < kOrders; order++) {
    const size_t length = static_cast<size_t>(kContextBytes[order]);
    if (position < length) continue;
    uint64_t hash = 0;
    for (size_t i = 1; i <= length; i++) hash = (hash + bytes[position - i] + 1) * 0x9E3779B97F4A7C15u;
    Guess& guess = guesses_[order][hash >> (64 - kTableBits)];
    const uint16_t check = static_cast<uint16_t>(hash >> 16);
    if (guess.confidence > 0 && guess.check == check) {
      const bool right = guess.symbol == symbol;
      if (!known) {
        uint16_t& hit = hit_[order][guess.confidence];
        cost += Cost(right ? hit : 65535u - hit);
        known = right;
        if (right) hit = static_cast<uint16_t>(hit + ((65535 - hit) >> 5)); else hit = static_cast<uint16_t>(hit - (hit >> 5));
      }
      if (right) guess.confidence = static_cast<uint8_t>(std::min(guess.confidence + 1, kConfidences));
      else if (guess.confidence > 1) guess.confidence = 1;
      else guess.symbol = symbol;
    } else {
      guess = {symbol, 1, check};
    }
  }
  if (!known) cost += Cost(frequency_[symbol] * 65536u / total_);
  frequency_[symbol] = static_cast<uint16_t>(frequency_[symbol] + 16);
  total_ += 16;
  if (total_ > kFrequencyLimit) {
    total_ = 0;
    for (uint16_t& frequency : frequency_) total_ += frequency = static_cast<uint16_t>(frequency / 2 + 1);
  }
  return cost;
}

}  // namespace whittle
