// Codes where each file's copies lie: gaps, lengths, and old positions relative to the diagonals seen before.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "codec/mixing.h"
#include "codec/wasm_image.h"

namespace whittle::codec {

/** A stretch of the target that resembles a stretch of its sources. */
struct Op {
  uint64_t new_position = 0;
  uint64_t old_position = 0;
  uint64_t length = 0;
};

/** Thrown by decoding models when a stream says something impossible. */
struct CorruptStream {
  const char* what;
};

/** What a file is, as far as models care. */
enum FileKind : uint32_t { kBinary = 0, kText = 1, kX86 = 2, kArm64 = 3, kArm32 = 4, kPyc = 5, kRiscv = 6, kWasm = 7, kFileKinds = 8 };

/** An adaptive code for unsigned numbers: a bit length, then the bits below the leading one. */
class NumberModel {
 public:
  template <class Coder>
  uint64_t Code(Coder& coder, uint64_t value, size_t context) {
    int width = 0;
    if (Coder::kEncodes) while (value >> width) width++;
    width = CodeTree(coder, &widths_[context * 64], 6, width);
    if (width > 53) throw CorruptStream{"a number is too large"};
    if (width <= 1) return static_cast<uint64_t>(width);
    uint64_t number = 1;
    for (int place = width - 2; place >= 0; place--) {
      const int bit = static_cast<int>((value >> place) & 1);
      const int depth = width - 2 - place;
      if (depth < 3) {
        number = number * 2 + CodeAdaptive(coder, tops_[(context * 64 + static_cast<size_t>(width)) * 8 + number], bit, 60);
      } else if (place < 3) {
        const uint64_t low = place == 2 ? 1 : place == 1 ? 2 + (number & 1) : 4 + (number & 3);
        number = number * 2 + CodeAdaptive(coder, lows_[context * 8 + low], bit, 250);
      } else {
        number = number * 2 + static_cast<uint64_t>(coder.Code(bit, 32768));
      }
    }
    return number;
  }

  /** Codes `depth` bits of `symbol`, each in the context of those before it. */
  template <class Coder>
  static int CodeTree(Coder& coder, AdaptiveBit* nodes, int depth, int symbol) {
    int node = 1;
    for (int place = depth - 1; place >= 0; place--) node = node * 2 + CodeAdaptive(coder, nodes[node], (symbol >> place) & 1, 60);
    return node - (1 << depth);
  }

  static constexpr size_t kContexts = 16;

 private:
  std::array<AdaptiveBit, kContexts * 64> widths_;
  std::array<AdaptiveBit, kContexts * 64 * 8> tops_;
  std::array<AdaptiveBit, kContexts * 8> lows_;
};

/** The list of a file's ops. Models persist from file to file. */
class OpModel {
 public:
  /** Starts a file; returns its kind. */
  template <class Coder>
  uint32_t BeginFile(Coder& coder, uint32_t kind, uint64_t target_size, uint64_t old_size) {
    target_size_ = target_size;
    old_size_ = old_size;
    position_ = old_end_ = 0;
    last_place_ = kSame;
    last_width_ = 0;
    diagonals_.fill(0);
    kind_ = static_cast<uint32_t>(NumberModel::CodeTree(coder, &kinds_[kind_ * 8], 3, static_cast<int>(kind)));
    return kind_;
  }

  /** Whether the file's references are rewritten. */
  template <class Coder>
  bool CodeReferences(Coder& coder, bool used) { return CodeAdaptive(coder, references_, used, 60) != 0; }

  /** A signed distance that is mostly zero. */
  template <class Coder>
  int64_t CodeShift(Coder& coder, int64_t shift) { return CodeSigned(coder, numbers_distance_, 15, shift); }

  /** How the numbers of a module moved. */
  template <class Coder>
  void CodeRuns(Coder& coder, IndexRuns& runs) {
    for (size_t space = 0; space < kWasmSpaces; space++) {
      const uint64_t count = numbers_distance_.Code(coder, runs[space].size(), 15);
      if (count > kMaxIndexRuns) throw CorruptStream{"a module's numbers move in too many ways"};
      runs[space].resize(static_cast<size_t>(count));
      IndexRun last;
      for (IndexRun& run : runs[space]) {
        const uint64_t start = uint64_t{last.start} + numbers_gap_.Code(coder, run.start - last.start, 12 + space);
        const int64_t step = CodeSigned(coder, numbers_length_, 12 + space, int64_t{run.shift} - last.shift);
        if (start >> 32 != 0) throw CorruptStream{"a module has no number so high"};
        run = {static_cast<uint32_t>(start), static_cast<int32_t>(static_cast<uint32_t>(last.shift) + static_cast<uint32_t>(step))};
        last = run;
      }
    }
  }

  /** Codes the file's next op in place (encoder: `op`, or none when `more` is false). False after the last. */
  template <class Coder>
  bool Code(Coder& coder, Op& op, bool more) {
    const uint64_t remaining = target_size_ - position_;
    if (remaining == 0 || old_size_ == 0) return false;
    if (!CodeAdaptive(coder, more_[last_place_ * 2 + (position_ == 0)], more, 250)) return false;
    const uint64_t gap = numbers_gap_.Code(coder, op.new_position - position_, last_place_ * 3 + Grade(last_width_));
    if (gap >= remaining) throw CorruptStream{"a gap reaches past the end of its file"};
    op.new_position = position_ + gap;
    CodeOldPosition(coder, op, gap != 0);
    CodeLength(coder, op);
    position_ = op.new_position + op.length;
    old_end_ = op.old_position + op.length;
    return true;
  }

 private:
  template <class Coder>
  static int64_t CodeSigned(Coder& coder, NumberModel& numbers, size_t context, int64_t value) {
    const uint64_t folded = static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
    const uint64_t number = numbers.Code(coder, folded, context);
    return static_cast<int64_t>(number >> 1) ^ -static_cast<int64_t>(number & 1);
  }

  enum Place : uint32_t { kSame = 0, kRecent = 1, kForward = 2, kBackward = 3 };
  static constexpr size_t kDiagonals = 16;

  static size_t Grade(int width) { return width < 6 ? 0 : width < 11 ? 1 : 2; }

  template <class Coder>
  void CodeOldPosition(Coder& coder, Op& op, bool has_gap) {
    const uint64_t expected = old_end_ + (op.new_position - position_);
    uint64_t diagonal = op.old_position - op.new_position;  // modulo 2^64
    uint32_t place = kSame;
    uint32_t slot = 0;
    uint64_t distance = 0;
    if (Coder::kEncodes && op.old_position != expected) {
      while (slot < kDiagonals && diagonals_[slot] != diagonal) slot++;
      distance = op.old_position > expected ? op.old_position - expected : expected - op.old_position;
      place = slot < kDiagonals && distance > 64 ? kRecent : op.old_position > expected ? kForward : kBackward;
    }
    place = static_cast<uint32_t>(NumberModel::CodeTree(coder, &places_[(last_place_ * 2 + has_gap) * 4], 2, static_cast<int>(place)));
    if (place == kSame) {
      op.old_position = expected;
    } else if (place == kRecent) {
      slot = static_cast<uint32_t>(NumberModel::CodeTree(coder, slots_.data(), 4, static_cast<int>(slot)));
      op.old_position = op.new_position + diagonals_[slot];
    } else {
      distance = numbers_distance_.Code(coder, distance, (place - 2) * 8 + last_place_ * 2 + has_gap);
      if (place == kBackward && distance > expected) throw CorruptStream{"a copy starts before its sources"};
      op.old_position = place == kForward ? expected + distance : expected - distance;
    }
    if (op.old_position >= old_size_) throw CorruptStream{"a copy starts past its sources"};
    diagonal = op.old_position - op.new_position;
    Remember(diagonal);
    last_place_ = place;
  }

  /** Moves a diagonal to the front of those seen. */
  void Remember(uint64_t diagonal) {
    size_t slot = 0;
    while (slot + 1 < kDiagonals && diagonals_[slot] != diagonal) slot++;
    for (; slot > 0; slot--) diagonals_[slot] = diagonals_[slot - 1];
    diagonals_[0] = diagonal;
  }

  template <class Coder>
  void CodeLength(Coder& coder, Op& op) {
    const uint64_t longest = std::min(target_size_ - op.new_position, old_size_ - op.old_position);
    const bool longest_is_rest = longest == target_size_ - op.new_position;
    const int whole = CodeAdaptive(coder, whole_[longest_is_rest * 4 + last_place_], op.length == longest, 250);
    const uint64_t length = whole ? longest : 1 + numbers_length_.Code(coder, op.length - 1, last_place_ * 3 + Grade(last_width_));
    if (length > longest) throw CorruptStream{"a copy is too long"};
    op.length = length;
    last_width_ = 0;
    while (length >> last_width_) last_width_++;
  }

  NumberModel numbers_gap_, numbers_length_, numbers_distance_;
  std::array<AdaptiveBit, kFileKinds * 8> kinds_;
  AdaptiveBit references_;
  std::array<AdaptiveBit, 8> more_;
  std::array<AdaptiveBit, 8 * 4> places_;
  std::array<AdaptiveBit, kDiagonals> slots_;
  std::array<AdaptiveBit, 8> whole_;
  std::array<uint64_t, kDiagonals> diagonals_{};
  uint64_t target_size_ = 0, old_size_ = 0, position_ = 0, old_end_ = 0;
  uint32_t kind_ = 0, last_place_ = kSame;
  int last_width_ = 0;
};

}  // namespace whittle::codec
