// Goes through a brotli stream whose text is known, in the order of its bits. Written once over a port, which either has the
// stream (it then codes what the text does not tell) or makes it (it then decodes that).
#pragma once

#include <cstddef>
#include <cstdint>

#include "brotli/decisions.h"
#include "brotli/format.h"
#include "brotli/matches.h"
#include "brotli/metablock.h"
#include "brotli/prefix_code.h"

namespace whittle::brotli {

/**
 * A port has: `Coder`, the range coder's type, and `coder()`; `Bits(n)`, the next n bits of the stream, of which nothing is known;
 * `Put(bits, n)`, bits of it that are known; `BitsOver()`, how far it is past a whole byte; `CheckSound()`, which throws
 * when what is decoded is made of nothing; and where the stream is at hand, `Peek()`, a function that reads ahead without taking.
 */
template <class Port>
class StreamWalker {
 public:
  /** Both are borrowed. */
  StreamWalker(Port& port, const uint8_t* text, size_t size) : port_(port), text_(text), size_(size), matches_(text, size), decisions_(port.coder(), matches_) {}

  /** All of the stream. Throws StreamError. */
  void Walk() {
    ReadWindow();
    for (bool is_last = false; !is_last;) {
      port_.CheckSound();
      is_last = Bits(1) == 1;
      if (is_last && Bits(1) == 1) break;
      WalkMetablock(is_last);
    }
    port_.Put(0, Padding());
    if (at_ != size_) throw StreamError("the stream holds another text");
  }

 private:
  using Coder = typename Port::Coder;

  uint32_t Bits(int count) { return port_.Bits(count); }
  /** Bits to the next whole byte. */
  int Padding() const { return (8 - port_.BitsOver()) & 7; }

  void ReadWindow() {
    int bits = 16;
    if (Bits(1) == 1) {
      bits = 17 + static_cast<int>(Bits(3));
      if (bits == 17) {
        const int small = static_cast<int>(Bits(3));
        if (small == 1) throw StreamError("a large window");
        bits = small == 0 ? 17 : 8 + small;
      }
    }
    around_.window = (1u << bits) - 16;
  }

  void WalkMetablock(bool is_last) {
    const int nibbles = static_cast<int>(Bits(2)) + 4;
    if (nibbles == 7) return SkipMetadata();
    const uint32_t length = Bits(4 * nibbles) + 1;
    if (length > size_ - at_) throw StreamError("the stream holds a longer text");
    if (!is_last && Bits(1) == 1) {
      Bits(Padding());
      for (const size_t end = at_ + length; at_ < end; at_++) port_.Put(text_[at_], 8);
      return;
    }
    metablock_.Read([this](int count) { return Bits(count); });
    around_.codes = metablock_.distance_codes;
    around_.end = at_ + length;
    while (at_ < around_.end) WalkCommand();
  }

  void SkipMetadata() {
    if (Bits(1) == 1) throw StreamError("a reserved bit is set");
    const int bytes = static_cast<int>(Bits(2));
    const uint32_t length = bytes == 0 ? 0 : Bits(8 * bytes) + 1;
    Bits(Padding());
    for (uint32_t index = 0; index < length; index++) {
      if (index % 1024 == 0) port_.CheckSound();
      Bits(8);
    }
  }

  void WalkCommand() {
    const auto bits = [this](int count) { return Bits(count); };
    metablock_.types[Metablock::kCommands].Next(bits, Place(Metablock::kCommands));
    around_.place = at_;
    Command wanted;
    if constexpr (Coder::kEncodes) wanted = Peek();
    if (++commands_ % 1024 == 0) port_.CheckSound();
    const Command command = decisions_.Code(wanted, around_);
    PutCommand(command);
    PutLiterals(command.insert);
    if (at_ == around_.end) return;
    if (!command.is_implicit) PutDistance(command);
    TakeCopy(command);
  }

  void PutCommand(const Command& command) {
    const int insert_code = LengthCode(kInsertLengths, command.insert), copy_code = LengthCode(kCopyLengths, command.copy);
    const int symbol = CommandSymbol(insert_code, copy_code, command.is_implicit);
    if (symbol < 0) throw StreamError("a command has no symbol");
    Put(metablock_.CommandCode(Place(Metablock::kCommands)), symbol);
    port_.Put(command.insert - kInsertLengths[insert_code].base, kInsertLengths[insert_code].extra_bits);
    port_.Put(command.copy - kCopyLengths[copy_code].base, kCopyLengths[copy_code].extra_bits);
  }

  void PutLiterals(uint32_t count) {
    const auto bits = [this](int some) { return Bits(some); };
    for (uint32_t index = 0; index < count; index++, at_++) {
      metablock_.types[Metablock::kLiterals].Next(bits, Place(Metablock::kLiterals));
      Put(metablock_.LiteralCode(Place(Metablock::kLiterals), ByteBefore(1), ByteBefore(2)), text_[at_]);
    }
  }

  void PutDistance(const Command& command) {
    metablock_.types[Metablock::kDistances].Next([this](int count) { return Bits(count); }, Place(Metablock::kDistances));
    Put(metablock_.DistanceCode(Place(Metablock::kDistances), command.copy), command.distance_symbol);
    if (command.distance_symbol >= kRingCodes) port_.Put(command.distance_extra, around_.codes.ExtraBits(command.distance_symbol));
  }

  /** Moves past what the command copies. */
  void TakeCopy(const Command& command) {
    const uint32_t length = CopiedLength(command, at_);
    if (length > around_.end - at_) throw StreamError("a copy is longer than its metablock");
    if (length + command.insert == 0) throw StreamError("a command gives nothing");
    const bool is_word = command.distance > around_.Farthest(at_);
    if (!is_word && command.distance_symbol != 0) around_.ring.Push(command.distance);
    at_ += length;
  }

  uint32_t CopiedLength(const Command& command, size_t at) const {
    const uint32_t farthest = around_.Farthest(at);
    if (command.distance == 0) throw StreamError("a copy of nothing");
    if (command.distance <= farthest) return command.copy;
    if (command.copy < kShortestWord || command.copy > kLongestWord) throw StreamError("a word has an unknown length");
    const uint32_t transform = (command.distance - farthest - 1) >> kWordBits[command.copy];
    if (transform >= kTransforms) throw StreamError("an unknown transform");
    return TransformedLength(transform, command.copy);
  }

  /** The command that the stream has next. Throws StreamError when it does not give the text. */
  Command Peek() const {
    auto bits = port_.Peek();
    Command command;
    int insert_code = 0, copy_code = 0;
    const int symbol = metablock_.CommandCode(metablock_.places[Metablock::kCommands]).Read(bits);
    SplitCommand(symbol, insert_code, copy_code);
    command.is_implicit = symbol < kImplicitDistances;
    command.insert = kInsertLengths[insert_code].base + bits(kInsertLengths[insert_code].extra_bits);
    command.copy = kCopyLengths[copy_code].base + bits(kCopyLengths[copy_code].extra_bits);
    if (command.insert > around_.end - at_) throw StreamError("literals go past their metablock");
    BlockTypes::Place literals = metablock_.places[Metablock::kLiterals];
    for (size_t at = at_; at < at_ + command.insert; at++) {
      metablock_.types[Metablock::kLiterals].Next(bits, literals);
      metablock_.LiteralCode(literals, at > 0 ? text_[at - 1] : 0, at > 1 ? text_[at - 2] : 0).Read(bits);
    }
    const size_t at = at_ + command.insert;
    if (at == around_.end) return command;
    if (!command.is_implicit) PeekDistance(bits, command);
    command.distance = command.distance_symbol < kRingCodes ? around_.ring.Distance(command.distance_symbol)
                                                            : around_.codes.Distance(command.distance_symbol, command.distance_extra);
    if (CopiedLength(command, at) > around_.end - at) throw StreamError("a copy is longer than its metablock");
    if (command.distance <= around_.Farthest(at) && matches_.Length(at, command.distance, command.copy) < command.copy) throw StreamError("a copy is not what the text has");
    return command;
  }

  template <typename Reader>
  void PeekDistance(Reader& bits, Command& command) const {
    BlockTypes::Place place = metablock_.places[Metablock::kDistances];
    metablock_.types[Metablock::kDistances].Next(bits, place);
    command.distance_symbol = metablock_.DistanceCode(place, command.copy).Read(bits);
    command.distance_extra = bits(command.distance_symbol < kRingCodes ? 0 : around_.codes.ExtraBits(command.distance_symbol));
  }

  BlockTypes::Place& Place(Metablock::Category category) { return metablock_.places[category]; }
  uint8_t ByteBefore(size_t back) const { return at_ >= back ? text_[at_ - back] : 0; }

  void Put(const PrefixCode& code, int symbol) {
    int count = 0;
    const uint32_t bits = code.Bits(symbol, count);
    port_.Put(bits, count);
  }

  Port& port_;
  const uint8_t* text_;
  size_t size_;
  size_t at_ = 0;
  uint64_t commands_ = 0;
  Matches matches_;
  Decisions<Coder> decisions_;
  Metablock metablock_;
  Surroundings around_;
};

}  // namespace whittle::brotli
