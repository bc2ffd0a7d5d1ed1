// Codes bytes that no copy covers: contexts of the bytes before, a match model over recent literals, and the old
// bytes where the copies around would go on. Of code, what an instruction has so far, and what those before it do.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "codec/byte_guess.h"
#include "codec/code_ranges.h"
#include "codec/expected_byte.h"
#include "codec/match_model.h"
#include "codec/mixing.h"
#include "codec/range_coder.h"
#include "codec/residue_model.h"
#include "codec/riscv_code.h"
#include "codec/x86_code.h"

namespace whittle::codec {

template <class Profile>
class LiteralModel {
 public:
  LiteralModel()
      : table_(Profile::kOrderBits + 3),
        mixer_(kTextSets + 4 * 256, kInputs, 16384 * 5 / 16),
        refiner_(kRefined * 256),
        match_(Profile::kHistoryBits, Profile::kHeadBits, Profile::kSparse) {
    for (AdaptiveBit& bit : hits_) bit = AdaptiveBit(49152, 1);
    for (AdaptiveBit& bit : longer_) bit = AdaptiveBit(49152, 1);
    for (uint32_t left = 2; left <= kLong; left++) long_[15 + left] = AdaptiveBit(65536 - 65536 / left, 4);
  }

  void BeginFile(uint32_t kind) {
    kind_ = kind;
    match_.Break();
    word_ = 0;
    window_ = surprises_ = raw_left_ = broken_ = 0;
    raw_run_ = kShortestRaw;
  }

  /** Old bytes in line with the literal's: those that follow the copy before it, and those that precede the copy after it. */
  struct Neighbours {
    const uint8_t* forward;
    const uint8_t* backward;
  };

  /**
   * Takes note of a stretch of a copy, for matches to come: of its first and last kObserved bytes only, as what is
   * near a literal is most like it. `begins` and `ends`: whether the copy does so with this stretch. Whole words of code
   * are taken as those of literals are.
   */
  void Observe(const uint8_t* bytes, size_t size, uint64_t position, CodeKind kind, bool begins, bool ends) {
    const size_t head = begins ? std::min(size, kObserved) : 0;
    const size_t tail = ends ? std::min(size - head, kObserved) : 0;
    const WholeWords words(position, size, kind);
    const auto observe = [&](size_t from, size_t to) {
      const uint8_t* told = kind == CodeKind::kRiscv ? CopyPlaced(bytes, from, to, position) : CopyTurned(bytes, from, to, words, kind, position, observed_.data());
      match_.Insert(to - from, [&](size_t index) { return told[index]; });
    };
    observe(0, head);
    observe(size - tail, size);
  }

  /** Starts a run of literals. */
  void BeginRun() {
    match_.Break();
    match_.Look();
    word_ = 0;
    forward_hits_ = backward_hits_ = 0;
    run_ = raw_left_ = broken_ = 0;
    is_code_ = false;
  }

  /** How many bytes before a run of code are read, to know where in an instruction it begins. */
  static constexpr size_t kCodeBefore = 64;

  /** Says of the run that begins that it is code of x86 or RISC-V. `bytes`: where it stands, at `position`, with kCodeBefore bytes before. */
  void BeginCode(CodeKind kind, const uint8_t* bytes, uint64_t position) {
    is_code_ = true;
    is_riscv_ = kind == CodeKind::kRiscv;
    const size_t before = kCodeBefore - (is_riscv_ ? position & 1 : 0);
    if (is_riscv_) riscv_.Begin();
    else x86_.Begin(kind == CodeKind::kX86Long);
    StepCode(bytes - before, before);
  }

  /** Of a run of RISC-V code: how many bytes the instruction at hand has left. */
  size_t LeftOfInstruction() const { return riscv_.Left(); }

  /** Codes `size` bytes (encoder: given, decoder: written) of the run; with a `width` above 1 they are words, highest byte first. */
  template <class Coder>
  void Code(Coder& coder, uint8_t* bytes, size_t size, const Neighbours& neighbours, uint64_t position, size_t width) {
    width_ = width;
    for (size_t index = 0; index < size;) {
      uint8_t* byte = bytes + index;
      if (raw_left_ == 0 && window_ >= (IsAfterRaw() ? kShortWindow : kWindow)) Judge();
      if (raw_left_ != 0) {
        *byte = CodeRaw(coder, *byte);
        index++;
        continue;
      }
      forward_ = neighbours.forward[index];
      backward_ = neighbours.backward[index];
      excluded_ = kNone;
      if (match_.length() >= kLong) {
        const size_t done = CodeLong(coder, byte, size - index, {neighbours.forward + index, neighbours.backward + index});
        window_ += static_cast<uint32_t>(done);
        index += done;
        if (done != 0) continue;
      }
      CodeLikely(coder, byte, position + index);
      Advance(*byte);
      window_++;
      index++;
    }
  }

 private:
  /** Copies RISC-V code, which is taken to begin with an instruction, for those that count from their place to count from the file's start. */
  const uint8_t* CopyPlaced(const uint8_t* bytes, size_t from, size_t to, uint64_t position) {
    const size_t odd = std::min<size_t>((position + from) & 1, to - from);
    std::copy(bytes + from, bytes + to, observed_.data());
    CountFromStart(observed_.data() + odd, to - from - odd, position + from + odd, false);
    return observed_.data();
  }

  void StepCode(const uint8_t* bytes, size_t size) {
    if (is_riscv_) riscv_.Step(bytes, size);
    else x86_.Step(bytes, size);
  }

  static constexpr uint32_t kLong = MatchModel::kLong;
  static constexpr size_t kObserved = 1024;
  static constexpr size_t kOrders = Profile::kOrders;
  static constexpr size_t kInputs = kOrders + (Profile::kNeighbours ? 3 : 1);
  /** Whether the word so far is in a context. */
  static constexpr bool kWords = kOrders > 4;
  /** The mixer's sets of weights: pyc (text has its own), other bytes and those of words, those of x86 code. */
  static constexpr size_t kTextVariant = 1, kX86Variant = 2 + 5 * 16, kRiscvVariant = kX86Variant + X86Code::kPlaces, kVariants = kRiscvVariant + RiscvCode::kVariants, kRefined = 7;
  /** From here on those of text, which the bits of a byte tell apart better than what comes before it. */
  static constexpr size_t kTextSets = 8 * 16 * kVariants;
  /** For the byte that seems likeliest: tables of bytes, and of histories of whether they were right. */
  static constexpr size_t kHitMaps = Profile::kHitMaps;
  static constexpr int kLongGuessBits = Profile::kLongGuessBits, kHitBits = Profile::kHitBits;
  static constexpr size_t kHits = 4;            // how many of the last hits are of use
  static constexpr uint32_t kNone = 256;        // as the excluded byte
  static constexpr size_t kExcludedTrust = 56;  // of match_trust_: those that follow are for excluded bytes
  /**
   * What is compressed already cannot be predicted, and modelling it costs a decoder most of its time: few bytes tell, and
   * after raw ones, which mostly go on, half as many. The bounds are about three standard deviations below what coins give.
   */
  static constexpr uint32_t kWindow = 256, kMostSurprises = kWindow * 8 * 30 / 64, kShortWindow = 128, kMostOfShort = kShortWindow * 8 * 29 / 64;
  static constexpr uint32_t kShortestRaw = 2048, kLongestRaw = 32768;

  /**
   * Codes what a long match expects: mostly one decision for as many bytes as made it long, then one for each up to the
   * first that is another. Returns how many bytes were; with 0 the next is another, and excluded.
   */
  template <class Coder>
  size_t CodeLong(Coder& coder, uint8_t* byte, size_t left, const Neighbours& neighbours) {
    const uint32_t grade = std::min<uint32_t>(match_.length() / kLong, 15);
    if (broken_ == 0 && left >= kLong) {
      if (CodeAdaptive(coder, longer_[grade], Coder::kEncodes && match_.GoesOn(byte), 250)) {
        match_.GoOn(byte);
        if (kWords && IsText()) for (size_t index = 0; index < kLong; index++) AddToWord(byte[index]);
        if (is_code_) StepCode(byte, kLong);
        for (size_t index = kLong - kHits; index < kLong; index++) AddToHits(byte[index], neighbours.forward[index], neighbours.backward[index]);
        run_ += kLong;
        return kLong;
      }
      broken_ = kLong;
    }
    const uint8_t expected = match_.expected();
    const bool hit = broken_ != 1 && CodeAdaptive(coder, long_[broken_ != 0 ? 15 + broken_ : grade], *byte == expected, 250);
    if (broken_ != 0) broken_--;
    if (hit) {
      *byte = expected;
      Advance(expected);
      return 1;
    }
    broken_ = 0;
    excluded_ = expected;
    return 0;
  }

  /** Whether the last window was as by the toss of a coin. */
  bool IsAfterRaw() const { return raw_run_ > kShortestRaw; }

  /** After each window of modelled bytes: when their bits came as by the toss of a coin, the next bytes are not modelled. */
  void Judge() {
    if (surprises_ > (IsAfterRaw() ? kMostOfShort : kMostSurprises)) {
      raw_left_ = raw_run_;
      raw_run_ = std::min(raw_run_ * 2, kLongestRaw);
      match_.Break();
      word_ = broken_ = 0;
    } else {
      raw_run_ = kShortestRaw;
    }
    window_ = 0;
    surprises_ = 0;
  }

  template <class Coder>
  uint8_t CodeRaw(Coder& coder, uint8_t byte) {
    byte = static_cast<uint8_t>(coder.CodeEven(byte, 8));
    match_.Insert(byte);
    if (is_code_) StepCode(&byte, 1);
    raw_left_--;
    return byte;
  }

  /** Codes a byte: mostly by one decision, that it is the one that seems likeliest; else by its nibbles. */
  template <class Coder>
  void CodeLikely(Coder& coder, uint8_t* byte, uint64_t position) {
    const uint32_t c4 = Word(byte);
    ByteGuess& long_guess = long_guesses_[Hash(c4, 0x700) >> (32 - kLongGuessBits)];
    ByteGuess& short_guess = short_guesses_[c4 & 0xffff];
    Candidate candidate;
    uint32_t hashes[5];
    Contexts(byte, position, hashes);
    for (size_t index = 0; index < kOrders; index++) table_.Expect(hashes[index]);
    if (excluded_ == kNone && FindCandidate(long_guess, short_guess, candidate)) {
      const uint32_t agreeing = (long_guess.value == candidate.value) | (short_guess.value == candidate.value) << 1 |
                                (forward_ == candidate.value) << 2 | (backward_ == candidate.value) << 3;
      if (CodeHit(coder, candidate, agreeing, c4, *byte == candidate.value)) {
        *byte = candidate.value;
        long_guess.Update(candidate.value);
        short_guess.Update(candidate.value);
        return;
      }
      excluded_ = candidate.value;
    }
    *byte = CodeByte(coder, byte, position, hashes);
    long_guess.Update(*byte);
    short_guess.Update(*byte);
  }

  /** A byte that seems likely; `grade`: why (times 16), and how much so. */
  struct Candidate {
    uint8_t value;
    uint32_t grade;
  };

  /** The byte that seems likeliest, from where it is surest; false when none does. */
  bool FindCandidate(const ByteGuess& long_guess, const ByteGuess& short_guess, Candidate& candidate) const {
    if (match_.length() >= Profile::kSureMatch) candidate = {match_.expected(), std::min<uint32_t>(match_.length(), 15)};
    else if (long_guess.hits >= Profile::kSureHits) candidate = {long_guess.value, 16u + long_guess.hits};
    else if (!Profile::kGuesses) return false;
    else if (match_.expects()) candidate = {match_.expected(), 32 + (match_.misses() & 7)};
    else if (short_guess.hits >= 2) candidate = {short_guess.value, 48u + short_guess.hits};
    else if ((forward_hits_ & 1) != 0) candidate = {forward_, 64 + (forward_hits_ & 15)};
    else return false;
    return true;
  }

  /** Codes whether the byte is the candidate. `agreeing`: which of the other sources name it too; `c4`: the bytes before, last lowest. */
  template <class Coder>
  int CodeHit(Coder& coder, const Candidate& candidate, uint32_t agreeing, uint32_t c4, int hit) {
    AdaptiveBit& direct = hits_[candidate.grade * 16 + agreeing];
    History* histories[kHitMaps];
    const auto find = [&](size_t index, uint32_t hash) { histories[index] = &hit_histories_[(index << kHitBits) + (hash >> (32 - kHitBits))]; };
    find(0, Hash((c4 & 0xffff) << 8 | candidate.value, candidate.grade >> 4));
    find(1, Hash(c4 & 0xffffff, candidate.value));
    if (kHitMaps > 2) {
      find(2, Hash(c4, candidate.value));
      find(3, Hash(IsText() ? word_ : (c4 & 0xff) << 16 | static_cast<uint32_t>(backward_) << 8 | forward_, 0x500u | candidate.value));
      find(4, Hash(candidate.grade << 4 | agreeing, (c4 & 0xff) << 8 | candidate.value));
    }
    Mixer::Inputs inputs;
    inputs.values[0] = static_cast<int16_t>(Stretch(direct.probability()));
    for (size_t index = 0; index < kHitMaps; index++) inputs.values[1 + index] = static_cast<int16_t>(hit_maps_[index].Predict(*histories[index]));
    Mixer::Inputs& weights = hit_mixer_.Weights((candidate.grade >> 4) * 16 + agreeing);
    const int mixed = Mixer::Mix(inputs, weights);
    if (Profile::kRefinesHits) {
      uint16_t* nearest;
      hit = coder.Code(hit, (Squash(mixed) + hit_refiner_.Refine(mixed, candidate.grade * 16 + agreeing, nearest)) >> 1);
      Refiner::Update(nearest, hit);
    } else {
      hit = coder.Code(hit, Squash(mixed));
    }
    Mixer::Update(inputs, weights, mixed, hit, 1);
    direct.Update(hit, 250);
    for (size_t index = 0; index < kHitMaps; index++) hit_maps_[index].Update(*histories[index], hit);
    return hit;
  }

  static uint32_t Word(const uint8_t* byte) {
    return static_cast<uint32_t>(byte[-1]) | static_cast<uint32_t>(byte[-2]) << 8 | static_cast<uint32_t>(byte[-3]) << 16 |
           static_cast<uint32_t>(byte[-4]) << 24;
  }

  void Advance(uint8_t byte) {
    match_.Append(byte);
    if (kWords && IsText()) AddToWord(byte);
    if (is_code_) StepCode(&byte, 1);
    AddToHits(byte, forward_, backward_);
    run_++;
  }

  void AddToHits(uint8_t byte, uint8_t forward, uint8_t backward) {
    forward_hits_ = forward_hits_ * 2 + (byte == forward);
    backward_hits_ = backward_hits_ * 2 + (byte == backward);
  }

  void AddToWord(uint8_t byte) {
    const bool letter = (byte | 32) >= 'a' && (byte | 32) <= 'z';
    word_ = letter || (byte >= '0' && byte <= '9') || byte >= 128 ? Hash(word_, byte) : 0;
  }

  bool IsText() const { return kind_ == kText || kind_ == kPyc; }

  /** Of instructions: their bytes so far, which say what they are, and the instructions before. */
  void WordContexts(const uint8_t* byte, uint64_t position, uint32_t* hashes) const {
    const uint32_t phase = static_cast<uint32_t>(position & (width_ - 1));
    const uint32_t so_far = (Word(byte) & ((1u << (8 * phase)) - 1)) | phase << 24;
    const uint32_t four = Word(byte - phase);
    const uint32_t before = width_ == 4 ? four : four & 0xffff, opcode = width_ == 4 ? before >> 21 : before >> 8;
    hashes[1] = Hash(so_far, 0x200 | opcode << 12);
    hashes[2] = Hash(so_far, 0x900);
    hashes[3] = Hash(so_far, before);
    hashes[4] = Hash(so_far, Hash(width_ == 4 ? opcode << 11 | Word(byte - phase - 4) >> 21 : four, 0x500));
  }

  /** Five contexts for the next byte, of which the profile takes the first kOrders. */
  void Contexts(const uint8_t* byte, uint64_t position, uint32_t* hashes) const {
    if (is_code_ && !is_riscv_) return x86_.Contexts(byte[-1], hashes);
    const uint32_t c4 = Word(byte);
    hashes[0] = Hash(static_cast<uint32_t>(forward_) << 16 | static_cast<uint32_t>(byte[-1]) << 8 | (forward_hits_ & 3), 7);
    if (is_code_) return riscv_.Contexts(hashes + 1);
    if (width_ > 1) return WordContexts(byte, position, hashes);
    hashes[1] = Hash(c4 & 0xffff, 2);
    if (IsText()) {
      const uint32_t c56 = static_cast<uint32_t>(byte[-5]) | static_cast<uint32_t>(byte[-6]) << 8;
      hashes[2] = Hash(c4 & 0xffffff, 3);
      hashes[3] = Hash(c4, 0x60000 | c56);
      hashes[4] = Hash(word_, 0x500 | byte[-1]);
    } else {
      // What code and tables are made of is short, and often apart: matches know the rest.
      hashes[2] = Hash(c4 & 0xff, 3);
      hashes[3] = Hash(c4 & 0xffff0000, 0x60000);
      hashes[4] = Hash(c4 & 0xffff00, 0x500);
    }
  }

  /** How far to trust a byte expected from the old file, as a context. */
  size_t Trust(uint32_t hits) const { return (hits & 15) * 4 + std::min<uint32_t>(run_, 3); }

  template <class Coder>
  uint8_t CodeByte(Coder& coder, const uint8_t* byte, uint64_t position, uint32_t* hashes) {
    const size_t variant = Variant(byte, position);
    const uint32_t high = CodeNibble(coder, hashes, 1, *byte >> 4, variant);
    for (size_t index = 0; index < kOrders; index++) hashes[index] = Hash(hashes[index], high);
    return static_cast<uint8_t>(CodeNibble(coder, hashes, high, *byte & 15, variant));
  }

  /**
   * Which of the mixer's weights: where there are no words, those for the byte before; else for each byte of a word and, after
   * the first, for what four bits of that say the instruction is. In x86 code those for the place in the instruction.
   */
  size_t Variant(const uint8_t* byte, uint64_t position) const {
    if (is_code_) return is_riscv_ ? kRiscvVariant + riscv_.Variant() : kX86Variant + x86_.place();
    if (width_ == 1) return kind_ == kText ? kTextVariant : kind_ == kPyc ? 0 : 2 + (byte[-1] >> 4);
    const size_t phase = static_cast<size_t>(position & (width_ - 1));
    return 18 + phase * 16 + (phase == 0 ? 0 : *(byte - phase) >> (width_ == 4 ? 1 : 4) & 15);
  }

  /** Codes four bits; `node` is 1 and the bits of the byte before them. Returns the node after. */
  template <class Coder>
  uint32_t CodeNibble(Coder& coder, const uint32_t* hashes, uint32_t node, uint32_t value, size_t variant) {
    NibbleSlot* slots[kOrders];
    table_.template Find<kOrders>(hashes, slots);
    const int base = node == 1 ? 4 : 0;
    const bool excludes = excluded_ != kNone;
    // What is known to be wrong is no expectation.
    ExpectedByte forward(&forward_trust_[Trust(forward_hits_)], forward_, Profile::kNeighbours && forward_ != excluded_, node, base);
    ExpectedByte backward(&backward_trust_[Trust(backward_hits_)], backward_, Profile::kNeighbours && backward_ != excluded_, node, base);
    ExpectedByte match(excludes ? &match_trust_[kExcludedTrust + static_cast<size_t>(base)] : &match_trust_[MatchGrade()],
                excludes ? excluded_ : match_.expected(), excludes || match_.expects(), node, base);
    const size_t grade = excludes ? 3 : match_.length() == 0 ? 1 : match_.length() < 16 ? 2 : 3;
    AdaptiveBit* const match_state = match.state;
    Mixer::Inputs* const weights_of_variant = &mixer_.Weights(variant * 128);
    uint32_t surprises = 0;
    // One for text, one for other bytes, one for each byte of a word, and one for x86 code.
    const size_t refined_from = std::min<size_t>((variant + 14) / 16, kRefined - 1) * 256;
    uint32_t within = 1;
    Held<Coder> held(coder);
    for (int place = 3; place >= 0; place--) {
      Mixer::Inputs inputs;
      for (size_t index = 0; index < kOrders; index++) inputs.values[index] = static_cast<int16_t>(maps_[index].Predict(slots[index]->histories[within - 1]));
      match.state = match_state + (excludes ? place : 0);
      inputs.values[kInputs - 1] = match.Input(base + place);
      if (Profile::kNeighbours) {
        inputs.values[kOrders] = forward.Input(base + place);
        inputs.values[kOrders + 1] = backward.Input(base + place);
      }
      const size_t matching = match.agrees ? grade : 0;
      const size_t selected = (matching * 4 + forward.agrees * 2 + backward.agrees) * 8 + static_cast<size_t>(base + place);
      Mixer::Inputs& weights = variant == kTextVariant ? mixer_.Weights(kTextSets + matching * 256 + node) : weights_of_variant[selected];
      const int mixed = Mixer::Mix(inputs, weights);
      uint16_t* nearest;
      const uint32_t refined = refiner_.Refine(mixed, refined_from + node, nearest);
      const uint32_t probability = (Squash(mixed) + refined + 1) >> 1;
      const int bit = held.Code(static_cast<int>(value >> place) & 1, probability);
      surprises += static_cast<uint32_t>(probability >= 32768) ^ static_cast<uint32_t>(bit);
      Mixer::Update(inputs, weights, mixed, bit, 1);
      Refiner::Update(nearest, bit);
      match.Update(base + place, bit);
      if (Profile::kNeighbours) {
        forward.Update(base + place, bit);
        backward.Update(base + place, bit);
      }
      for (size_t index = 0; index < kOrders; index++) maps_[index].Update(slots[index]->histories[within - 1], bit);
      node = node * 2 + static_cast<uint32_t>(bit);
      within = within * 2 + static_cast<uint32_t>(bit);
    }
    surprises_ += surprises;
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
  std::array<AdaptiveBit, 48> long_;
  std::array<AdaptiveBit, 16> longer_;
  uint32_t kind_ = 0, word_ = 0, forward_hits_ = 0, backward_hits_ = 0, run_ = 0;
  uint32_t window_ = 0, surprises_ = 0, raw_left_ = 0, raw_run_ = kShortestRaw;
  uint32_t broken_ = 0;  // how many of the next bytes, one of them, are not as a long match expects
  size_t width_ = 1;  // of words
  std::array<uint8_t, kObserved + 8> observed_;
  bool is_code_ = false, is_riscv_ = false;  // the run: of x86 or RISC-V, and of which
  X86Code x86_;
  RiscvCode riscv_;
  uint8_t forward_ = 0, backward_ = 0;
  LargeVector<ByteGuess> long_guesses_ = LargeVector<ByteGuess>(size_t{1} << kLongGuessBits);
  LargeVector<ByteGuess> short_guesses_ = LargeVector<ByteGuess>(size_t{1} << 16);
  LargeVector<History> hit_histories_ = LargeVector<History>(kHitMaps << kHitBits);
  std::array<HistoryMap, kHitMaps> hit_maps_;
  Refiner hit_refiner_{5 * 16 * 16};
  Mixer hit_mixer_{5 * 16, 1 + kHitMaps, 16384 * 5 / 16};
  std::array<AdaptiveBit, 5 * 16 * 16> hits_;
  uint32_t excluded_ = kNone;  // a byte that the one to be coded is not
};

}  // namespace whittle::codec
