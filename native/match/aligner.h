// Chooses, for every byte of the new file, the old byte that it shall be coded against.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "match/literal_cost.h"
#include "match/seed_index.h"

namespace whittle {

/** New bytes [new_position, new_position + length) are coded against old bytes from old_position on. */
struct MatchOp {
  uint64_t new_position;
  uint64_t old_position;
  uint64_t length;
};

/**
 * What the entropy coder is expected to pay, in 1/16 bit: the defaults are for executables. Measured with that coder on real
 * pairs of files; the optimum is flat. Integers: every machine must choose the same.
 */
struct AlignmentCosts {
  int equal = 1;             // a byte of a copy that equals its old byte
  int different = 95;        // one that does not: its place and its value
  int also_different = 112;  // one after such a one
  int literal = 44;          // what every literal costs
  int literal_scale = 4;     // sixteenths of what LiteralCost says, on top
  int enter_literal = 160;
  int enter_copy = 800;
  int resume_copy = 288;  // a copy that goes on where the last one would be by now
};

/** The costs for content like this: text codes literals far better than code does. */
AlignmentCosts CostsFor(const uint8_t* bytes, size_t size);

/** The old bytes, borrowed, and an index of them that is made when first wanted. For any number of threads at once. */
class OldText {
 public:
  /** Seeds have `seed_length` bytes; the index is made by up to `threads` threads. */
  OldText(const uint8_t* text, size_t size, size_t seed_length, int threads) : text_(text), size_(size), seed_length_(seed_length), threads_(threads) {}

  const uint8_t* text() const { return text_; }
  size_t size() const { return size_; }
  size_t seed_length() const { return seed_length_; }
  const SeedIndex& index() {
    std::call_once(once_, [this] { index_ = std::make_unique<SeedIndex>(text_, size_, seed_length_, threads_); });
    return *index_;
  }

 private:
  const uint8_t* text_;
  size_t size_;
  size_t seed_length_;
  int threads_;
  std::once_flag once_;
  std::unique_ptr<SeedIndex> index_;
};

/**
 * Covers `fresh` with copies of `old` so that the expected cost is least among all alignments that its index suggests:
 * ascending, without overlap. `first_diagonal` is the old position that the first byte is likely to match.
 */
std::vector<MatchOp> Align(OldText& old, const uint8_t* fresh, size_t fresh_size, int64_t first_diagonal, const AlignmentCosts& costs);

}  // namespace whittle
