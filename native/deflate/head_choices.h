// What a block says of its codes, which is known before it is told where the encoder made the codes of the block's symbols as others do.
#pragma once

#include <array>
#include <cstring>

#include "deflate/block.h"
#include "deflate/prefix_code.h"
#include "streams/choices.h"

namespace whittle::deflate {

/** The choices of heads, of which each learns from those before. Written once over the coder, as the models of native/codec are. */
template <class Coder>
class HeadChoices {
 public:
  /** Borrowed. */
  explicit HeadChoices(Coder& coder) : coder_(coder) {}

  /** Codes the head of a block whose symbols occur so often. Throws StreamError when the wanted one does not hold together. */
  void Code(const CodeHead& wanted, const uint32_t* literal_counts, const uint32_t* distance_counts, CodeHead& head) {
    CodeLengths(kLiterals, wanted.literal_lengths, literal_counts, head.literal_lengths);
    CodeLengths(kDistances, wanted.distance_lengths, distance_counts, head.distance_lengths);
    head.literals = CodeSent(kLiterals, wanted.literals, head.literal_lengths, kFirstLength, kLiteralSymbols);
    head.distances = CodeSent(kDistances, wanted.distances, head.distance_lengths, 1, kDistanceSymbols);
    CodeRuns(wanted, head);
    uint32_t run_counts[kRunSymbols] = {};
    for (int index = 0; index < head.run_count; index++) run_counts[head.runs[index].symbol]++;
    CodeLengths(kRunLengths, wanted.run_lengths, run_counts, head.run_lengths);
    uint8_t ordered[kRunSymbols];
    for (int index = 0; index < kRunSymbols; index++) ordered[index] = head.run_lengths[kRunOrder[index]];
    head.run_lengths_sent = CodeSent(kRunLengths, wanted.run_lengths_sent, ordered, 4, kRunSymbols);
  }

 private:
  enum Alphabet { kLiterals, kDistances, kRunLengths };
  static constexpr int kSymbols[] = {kLiteralSymbols, kDistanceSymbols, kRunSymbols};
  /** Who made a code, or a list of runs. */
  enum Maker { kHeap, kSorted, kOther };
  enum Runs { kApart, kJoined, kOneByOne };

  bool CodeFlag(codec::AdaptiveBit& state, bool flag) { return codec::CodeAdaptive(coder_, state, flag, 250) == 1; }

  void CodeLengths(Alphabet alphabet, const uint8_t* wanted, const uint32_t* counts, uint8_t* lengths) {
    const int symbols = kSymbols[alphabet], longest = alphabet == kRunLengths ? kLongestRunCode : kLongestCode;
    uint8_t heap[kLiteralSymbols], sorted[kLiteralSymbols];
    HeapLengths(counts, symbols, longest, heap);
    SortedLengths(counts, symbols, longest, sorted);
    const auto is = [&](const uint8_t* made) { return std::memcmp(wanted, made, static_cast<size_t>(symbols)) == 0; };
    const int maker = makers_[alphabet].Code(coder_, is(heap) ? kHeap : is(sorted) ? kSorted : kOther);
    if (maker > kOther) throw StreamError("a code has an unknown maker");
    if (maker == kOther) {
      CodeOneByOne(alphabet, wanted, counts, {heap, sorted}, lengths);
    } else {
      std::memcpy(lengths, maker == kHeap ? heap : sorted, static_cast<size_t>(symbols));
    }
    std::memcpy(before_[alphabet], lengths, static_cast<size_t>(symbols));
  }

  void CodeOneByOne(Alphabet alphabet, const uint8_t* wanted, const uint32_t* counts, const std::array<const uint8_t*, 2>& made, uint8_t* lengths) {
    const uint32_t longest = alphabet == kRunLengths ? kLongestRunCode : kLongestCode;
    uint32_t last_error = 2, errors = 0;
    for (int symbol = 0; symbol < kSymbols[alphabet]; symbol++) {
      const uint32_t heap = made[0][symbol], sorted = made[1][symbol], before = before_[alphabet][symbol], place = alphabet;
      const uint32_t seen = streams::BitLength(counts[symbol]);
      const std::array<uint32_t, 6> contexts = {
          (place << 4 | heap) << 4 | sorted,
          ((place << 4 | heap) << 3 | last_error) << 1 | (seen > 0),
          (place << 4 | heap) << 4 | before,
          errors << 1 | (seen > 0),
          (place << 5 | seen) << 4 | heap,
          ((place << 4 | heap) << 4 | before) << 4 | (symbol > 0 ? lengths[symbol - 1] : 0)};
      uint32_t length = heap;
      if (expected_.Code(coder_, wanted[symbol] == heap, contexts, place * 16 + heap) == 0) {
        length = static_cast<uint32_t>(told_[alphabet][heap].Code(coder_, wanted[symbol]));
        if (length > longest) throw StreamError("a code is too long");
      }
      lengths[symbol] = static_cast<uint8_t>(length);
      last_error = static_cast<uint32_t>(std::clamp(static_cast<int>(length) - static_cast<int>(heap), -2, 2) + 2);
      errors = (errors << 3 | last_error) & 511;
    }
  }

  /** How many of the lengths are sent: up to the last that is not 0, but `least`, unless it is told. */
  int CodeSent(Alphabet alphabet, int wanted, const uint8_t* lengths, int least, int most) {
    int sent = most;
    while (sent > least && lengths[sent - 1] == 0) sent--;
    if (CodeFlag(all_sent_[alphabet], wanted == sent)) return sent;
    const int told = least + static_cast<int>(streams::CodeBits(coder_, static_cast<uint32_t>(wanted - least), 5));
    if (told > most || told < sent) throw StreamError("a code has symbols that are not sent");
    return told;
  }

  void CodeRuns(const CodeHead& wanted, CodeHead& head) {
    const int kind = runs_.Code(coder_, Coder::kEncodes ? KindOf(wanted) : 0);
    if (kind > kOneByOne) throw StreamError("runs of an unknown kind");
    head.run_count = 0;
    for (int at = 0, total = head.total(); at < total;) {
      const Run usual = Usual(head, at, kind);
      const Run run = kind == kOneByOne ? CodeRun(wanted.runs[head.run_count], usual) : usual;
      if (run.Count() > total - at || !Says(head, run, at)) throw StreamError("a run says other lengths");
      head.runs[head.run_count++] = run;
      at += run.Count();
    }
  }

  static Run Usual(const CodeHead& head, int at, int kind) {
    if (kind != kApart) return head.RunAt(at, 0, head.total());
    return at < head.literals ? head.RunAt(at, 0, head.literals) : head.RunAt(at, head.literals, head.total());
  }

  static int KindOf(const CodeHead& wanted) {
    for (const int kind : {kApart, kJoined}) {
      int index = 0, at = 0;
      for (; at < wanted.total() && index < wanted.run_count; index++) {
        const Run usual = Usual(wanted, at, kind), run = wanted.runs[index];
        if (run.symbol != usual.symbol || run.more != usual.more) break;
        at += run.Count();
      }
      if (at == wanted.total()) return kind;
    }
    return kOneByOne;
  }

  Run CodeRun(const Run& wanted, const Run& usual) {
    const int kind = std::max<int>(usual.symbol, kFirstRun - 1) - (kFirstRun - 1);
    const bool is_usual = CodeFlag(usual_run_[kind][last_kind_], wanted.symbol == usual.symbol && wanted.more == usual.more);
    Run run = usual;
    if (!is_usual) {
      run.symbol = static_cast<uint8_t>(run_symbols_[kind].Code(coder_, wanted.symbol));
      if (run.symbol >= kRunSymbols) throw StreamError("an unknown run");
      run.more = run.symbol < kFirstRun ? 0 : static_cast<uint8_t>(streams::CodeBits(coder_, wanted.more, kRuns[run.symbol - kFirstRun].extra_bits));
    }
    last_kind_ = is_usual ? 0 : 1;
    return run;
  }

  static bool Says(const CodeHead& head, const Run& run, int at) {
    const int length = run.symbol < kFirstRun ? run.symbol : run.symbol > kFirstRun ? 0 : at > 0 ? head.LengthAt(at - 1) : -1;
    for (int index = 0; index < run.Count(); index++) {
      if (head.LengthAt(at + index) != length) return false;
    }
    return true;
  }

  Coder& coder_;
  uint8_t before_[3][kLiteralSymbols] = {};
  int last_kind_ = 0;
  streams::Symbol<2> makers_[3], runs_;
  streams::Symbol<4> told_[3][16];
  streams::Symbol<5> run_symbols_[4];
  codec::AdaptiveBit all_sent_[3], usual_run_[4][2];
  streams::MixedBit expected_;
};

}  // namespace whittle::deflate
