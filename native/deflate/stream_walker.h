// Goes through a deflate stream whose text is known, in the order of its bits. Written once over a port, which either has the
// stream (it then codes what the text does not tell) or makes it (it then decodes that).
#pragma once

#include <cstddef>
#include <cstdint>

#include "deflate/block.h"
#include "deflate/format.h"
#include "deflate/habits.h"
#include "deflate/head_choices.h"
#include "deflate/prefix_code.h"
#include "deflate/token_choices.h"
#include "streams/choices.h"

namespace whittle::deflate {

/** Codes habits. Throws StreamError when they are none. */
template <class Coder>
Habits CodeHabits(Coder& coder, const Habits& wanted) {
  const auto code = [&coder](uint32_t number, int bits) { return streams::CodeBits(coder, number, bits); };
  Habits habits;
  habits.manner = static_cast<uint8_t>(code(wanted.manner, 4));
  const uint32_t hashing = code(static_cast<uint32_t>(wanted.hashing), 2);
  if (hashing > static_cast<uint32_t>(Hashing::kFour)) throw StreamError("an unknown hashing");
  habits.hashing = static_cast<Hashing>(hashing);
  if (habits.hashing == Hashing::kZlib) habits.hash_bits = static_cast<uint8_t>(8 + code(wanted.hash_bits - 8u, 4));
  if (habits.hash_bits > 16) throw StreamError("a hash is too large");
  habits.is_filtered = code(wanted.is_filtered, 1) == 1;
  habits.skips_first = code(wanted.skips_first, 1) == 1;
  habits.window_bits = static_cast<uint8_t>(8 + code(wanted.window_bits - 8u, 3));
  habits.keeps_ready = code(wanted.keeps_ready, 1) == 1;
  if (habits.keeps_ready && habits.window_bits == 8) throw StreamError("a window of nothing");
  return habits;
}

/**
 * A port has: `Coder`, the range coder's type, and `coder()`; `Put(bits, n)`, bits of the stream that are known; `BitsOver()`, how far it
 * is past a whole byte; `CheckSound()`, which throws when what is decoded is made of nothing; and where the stream is at hand, `Next()`,
 * the next of its blocks.
 */
template <class Port>
class StreamWalker {
 public:
  /** Port and text are borrowed. The habits are wanted, as all that is coded. */
  StreamWalker(Port& port, const uint8_t* text, size_t size, const Habits& habits = {})
      : port_(port), text_(text), size_(size), tokens_(port.coder(), text, size, CodeHabits(port.coder(), habits)), heads_(port.coder()) {}

  /** All of the stream. Throws StreamError. */
  void Walk() {
    while (!WalkBlock(SIZE_MAX)) {}
    PutFilling(CodeFilling(port_.BitsOver(), last_filling()));
    if (at_ != size_) throw StreamError("the stream holds another text");
  }

  /** As far as so many bytes of text, of a stream that is at hand; puts nothing behind the last whole block. */
  void WalkSome(size_t bytes) {
    while (at_ < bytes && !WalkBlock(bytes)) {}
  }

 private:
  using Coder = typename Port::Coder;

  bool CodeFlag(codec::AdaptiveBit& state, bool flag) { return codec::CodeAdaptive(port_.coder(), state, flag, 250) == 1; }
  /** A number of up to 32 bits. */
  uint64_t CodeNumber(streams::Symbol<6>& lengths, uint64_t wanted) {
    const int length = lengths.Code(port_.coder(), static_cast<int>(streams::BitLength(static_cast<uint32_t>(wanted))));
    if (length > 32) throw StreamError("a number is too large");
    return length < 2 ? static_cast<uint64_t>(length) : uint64_t{1} << (length - 1) | streams::CodeBits(port_.coder(), static_cast<uint32_t>(wanted) & ((1u << (length - 1)) - 1), length - 1);
  }

  /** True when it was the last, or the walk goes no farther than `bytes`. */
  bool WalkBlock(size_t bytes) {
    port_.CheckSound();
    const Block* wanted = &none_;
    if constexpr (Coder::kEncodes) wanted = &port_.Next();
    block_.kind = static_cast<BlockKind>(kinds_[static_cast<int>(block_.kind)].Code(port_.coder(), static_cast<int>(wanted->kind)));
    if (block_.kind > BlockKind::kDynamic) throw StreamError("an unknown kind of block");
    if (block_.kind == BlockKind::kStored) {
      CodeStored(*wanted);
    } else {
      CodePieces(*wanted, bytes);
      if (Coder::kEncodes && at_ >= bytes) return true;
    }
    const size_t end = at_ + (block_.kind == BlockKind::kStored ? block_.stored : 0);
    block_.is_last = CodeFlag(last_[end == size_], wanted->is_last);
    if (block_.kind == BlockKind::kDynamic) CodeHead(*wanted);
    port_.Put(static_cast<uint32_t>(block_.kind) << 1 | block_.is_last, 3);
    if (block_.kind == BlockKind::kStored) PutStored(*wanted); else PutPieces();
    return block_.is_last;
  }

  void CodeStored(const Block& wanted) {
    const uint32_t left = static_cast<uint32_t>(std::min<size_t>(size_ - at_, kMostStored));
    if (CodeFlag(stored_whole_, wanted.stored == left)) {
      block_.stored = left;
    } else if (CodeFlag(stored_usual_, wanted.stored == usual_stored_)) {
      block_.stored = usual_stored_;
    } else {
      block_.stored = streams::CodeBits(port_.coder(), wanted.stored, 16);
    }
    if (block_.stored > size_ - at_) throw StreamError("the stream holds a longer text");
    if (block_.stored != left) usual_stored_ = block_.stored;
  }

  /** Bits that fill a byte: zeros as a rule. */
  uint32_t CodeFilling(int bits_over, uint8_t wanted) {
    const int count = (8 - bits_over) & 7;
    if (count == 0 || CodeFlag(filled_, wanted == 0)) return 0;
    return streams::CodeBits(port_.coder(), wanted, count);
  }
  void PutFilling(uint32_t bits) { port_.Put(bits, (8 - port_.BitsOver()) & 7); }
  uint8_t last_filling() {
    if constexpr (Coder::kEncodes) return port_.last_filling();
    return 0;
  }

  void PutStored(const Block& wanted) {
    PutFilling(CodeFilling(port_.BitsOver(), wanted.filling));
    port_.Put(block_.stored, 16);
    port_.Put(~block_.stored & 0xffff, 16);
    for (const size_t end = at_ + block_.stored; at_ < end; at_++) port_.Put(text_[at_], 8);
  }

  /** The symbols of a block: their number, then each. */
  void CodePieces(const Block& wanted, size_t bytes) {
    const bool is_to_end = CodeFlag(to_end_, wanted.is_to_end);
    uint64_t count = usual_count_;
    if (!is_to_end && !CodeFlag(usual_, wanted.count == usual_count_)) usual_count_ = count = CodeNumber(counts_, wanted.count);
    start_ = at_;
    block_.pieces.clear();
    Piece piece;
    size_t piece_index = 0;
    uint32_t literals = 0;
    for (uint64_t done = 0; is_to_end ? at_ < size_ : done < count; done++) {
      if (done % 1024 == 0) port_.CheckSound();
      if (at_ == size_) throw StreamError("the stream holds a longer text");
      Match match;
      if constexpr (Coder::kEncodes) {
        if (at_ >= bytes) return;
        const Piece& next = wanted.pieces[piece_index];
        if (literals == next.literals) {
          match = {next.copied, next.distance_less_one + 1u};
          piece_index++, literals = 0;
        } else {
          literals++;
        }
      }
      match = tokens_.Code(match, at_);
      if (match.length == 0) {
        piece.literals++;
        at_++;
        continue;
      }
      piece.copied = static_cast<uint16_t>(match.length);
      piece.distance_less_one = static_cast<uint16_t>(match.distance - 1);
      if (block_.pieces.size() + 1 == kMostPieces) throw StreamError("a block has too many copies");
      block_.pieces.push_back(piece);
      piece = {};
      at_ += match.length;
    }
    block_.pieces.push_back(piece);
  }

  void CodeHead(const Block& wanted) {
    // zlib has 127 symbols in a block at least. Many blocks of nothing would take long to write.
    if (++heads_coded_ > kFreeHeads + size_ / kBytesPerHead) throw StreamError("too many blocks have codes");
    uint32_t literal_counts[kLiteralSymbols] = {}, distance_counts[kDistanceSymbols] = {};
    literal_counts[kEndOfBlock] = 1;
    size_t at = start_;
    for (const Piece& piece : block_.pieces) {
      for (uint32_t literals = piece.literals; literals > 0; literals--) literal_counts[text_[at++]]++;
      if (piece.copied == 0) continue;
      literal_counts[LengthTold(piece.copied).symbol]++;
      distance_counts[DistanceTold(piece.distance_less_one + 1u).symbol]++;
      at += piece.copied;
    }
    heads_.Code(wanted.head, literal_counts, distance_counts, block_.head);
  }

  void PutPieces() {
    if (block_.kind == BlockKind::kDynamic) {
      PutHead();
      literal_code_.Set(block_.head.literal_lengths, kLiteralSymbols);
      distance_code_.Set(block_.head.distance_lengths, kDistanceSymbols);
      tokens_.SetCosts(block_.head.literal_lengths, block_.head.distance_lengths);
    } else {
      literal_code_.Set(kFixedLengths.literals, kMostSymbols);
      distance_code_.Set(kFixedLengths.distances, kDistanceSymbols);
      tokens_.SetCosts(kFixedLengths.literals, kFixedLengths.distances);
    }
    size_t at = start_;
    for (const Piece& piece : block_.pieces) {
      for (uint32_t literals = piece.literals; literals > 0; literals--) PutSymbol(literal_code_, text_[at++]);
      if (piece.copied == 0) continue;
      PutTold(literal_code_, LengthTold(piece.copied));
      PutTold(distance_code_, DistanceTold(piece.distance_less_one + 1u));
      at += piece.copied;
    }
    PutSymbol(literal_code_, kEndOfBlock);
  }

  void PutHead() {
    const deflate::CodeHead& head = block_.head;
    port_.Put(static_cast<uint32_t>(head.literals - kFirstLength), 5);
    port_.Put(static_cast<uint32_t>(head.distances - 1), 5);
    port_.Put(static_cast<uint32_t>(head.run_lengths_sent - 4), 4);
    for (int index = 0; index < head.run_lengths_sent; index++) port_.Put(head.run_lengths[kRunOrder[index]], 3);
    PrefixCode code;
    code.Set(head.run_lengths, kRunSymbols);
    for (int index = 0; index < head.run_count; index++) {
      const Run run = head.runs[index];
      PutSymbol(code, run.symbol);
      if (run.symbol >= kFirstRun) port_.Put(run.more, kRuns[run.symbol - kFirstRun].extra_bits);
    }
  }

  void PutTold(const PrefixCode& code, const Told& told) {
    PutSymbol(code, told.symbol);
    port_.Put(told.extra, told.extra_bits);
  }

  void PutSymbol(const PrefixCode& code, int symbol) {
    int count = 0;
    const uint32_t bits = code.Bits(symbol, count);
    port_.Put(bits, count);
  }

  static constexpr uint32_t kMostStored = 65535;
  static constexpr size_t kFreeHeads = 64, kBytesPerHead = 64;

  Port& port_;
  const uint8_t* text_;
  size_t size_;
  size_t at_ = 0;
  /** Where the block began. */
  size_t start_ = 0;
  size_t heads_coded_ = 0;
  TokenChoices<Coder> tokens_;
  HeadChoices<Coder> heads_;
  Block block_;
  const Block none_ = {};
  PrefixCode literal_code_, distance_code_;
  /** zlib's blocks have one symbol less than its buffer holds. */
  uint64_t usual_count_ = 16383;
  uint32_t usual_stored_ = kMostStored;
  streams::Symbol<2> kinds_[3];
  streams::Symbol<6> counts_;
  codec::AdaptiveBit last_[2], to_end_, usual_, stored_whole_, stored_usual_, filled_;
};

}  // namespace whittle::deflate
