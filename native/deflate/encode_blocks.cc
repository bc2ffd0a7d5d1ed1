#include "deflate/encode_blocks.h"

#include <cstring>

#include "deflate/prefix_code.h"
#include "streams/reading_port.h"

namespace whittle::deflate {

namespace {

class Taker {
 public:
  Taker(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size) : bits_(stream, size), text_(text), size_(text_size) {}

  TakenStream Take() {
    TakeBlocks(SIZE_MAX);
    taken_.last_filling = TakeFilling();
    if (!bits_.AtEnd()) throw StreamError("the stream goes on");
    if (at_ != size_) throw StreamError("the stream holds another text");
    return std::move(taken_);
  }

  TakenStream TakeSome(size_t bytes) {
    TakeBlocks(bytes);
    return std::move(taken_);
  }

 private:
  /** Up to the last, or all that begin within so many bytes of text. */
  void TakeBlocks(size_t bytes) {
    do {
      taken_.blocks.emplace_back();
      TakeBlock(taken_.blocks.back());
    } while (!taken_.blocks.back().is_last && at_ < bytes);
  }

  uint8_t TakeFilling() { return static_cast<uint8_t>(bits_((8 - bits_.BitsOver()) & 7)); }

  void TakeBlock(Block& block) {
    block.is_last = bits_(1) == 1;
    const uint32_t kind = bits_(2);
    if (kind > static_cast<uint32_t>(BlockKind::kDynamic)) throw StreamError("an unknown kind of block");
    block.kind = static_cast<BlockKind>(kind);
    if (block.kind == BlockKind::kStored) return TakeStored(block);
    if (block.kind == BlockKind::kFixed) return TakePieces(block, PrefixReader(kFixedLengths.literals, kMostSymbols), PrefixReader(kFixedLengths.distances, kDistanceSymbols));
    TakeHead(block.head);
    TakePieces(block, PrefixReader(block.head.literal_lengths, kLiteralSymbols), PrefixReader(block.head.distance_lengths, kDistanceSymbols));
  }

  void TakeStored(Block& block) {
    block.filling = TakeFilling();
    block.stored = bits_(16);
    if (bits_(16) != (~block.stored & 0xffff)) throw StreamError("a stored block contradicts itself");
    if (block.stored > size_ - at_) throw StreamError("the stream holds a longer text");
    for (const size_t end = at_ + block.stored; at_ < end; at_++) {
      if (bits_(8) != text_[at_]) throw StreamError("the stream holds another text");
    }
  }

  void TakeHead(CodeHead& head) {
    head.literals = kFirstLength + static_cast<int>(bits_(5));
    head.distances = 1 + static_cast<int>(bits_(5));
    head.run_lengths_sent = 4 + static_cast<int>(bits_(4));
    if (head.literals > kLiteralSymbols || head.distances > kDistanceSymbols) throw StreamError("a code has too many symbols");
    for (int index = 0; index < head.run_lengths_sent; index++) head.run_lengths[kRunOrder[index]] = static_cast<uint8_t>(bits_(3));
    const PrefixReader reader(head.run_lengths, kRunSymbols);
    const int total = head.total();
    uint8_t last = 0;
    for (int at = 0; at < total;) {
      Run& run = head.runs[head.run_count++];
      run.symbol = static_cast<uint8_t>(reader.Read(bits_));
      if (run.symbol >= kFirstRun) run.more = static_cast<uint8_t>(bits_(kRuns[run.symbol - kFirstRun].extra_bits));
      if (run.Count() > total - at || (run.symbol == kFirstRun && at == 0)) throw StreamError("a run goes past the codes");
      if (run.symbol != kFirstRun) last = run.symbol < kFirstRun ? run.symbol : 0;
      for (const int end = at + run.Count(); at < end; at++) (at < head.literals ? head.literal_lengths[at] : head.distance_lengths[at - head.literals]) = last;
    }
  }

  void TakePieces(Block& block, const PrefixReader& literals, const PrefixReader& distances) {
    Piece piece;
    for (;; block.count++) {
      const int symbol = literals.Read(bits_);
      if (symbol == kEndOfBlock) break;
      if (at_ == size_) throw StreamError("the stream holds a longer text");
      if (symbol < kEndOfBlock) {
        if (text_[at_] != symbol) throw StreamError("the stream holds another text");
        at_++;
        piece.literals++;
        continue;
      }
      if (symbol >= kLiteralSymbols) throw StreamError("an unknown length");
      TakeCopy(piece, symbol, distances);
      if (block.pieces.size() + 1 == kMostPieces) throw StreamError("a block has too many copies");
      block.pieces.push_back(piece);
      piece = {};
    }
    block.pieces.push_back(piece);
    block.is_to_end = at_ == size_;
  }

  void TakeCopy(Piece& piece, int symbol, const PrefixReader& distances) {
    const NumberRange range = kLengths[symbol - kFirstLength];
    const uint32_t length = range.base + bits_(range.extra_bits);
    const int distance_symbol = distances.Read(bits_);
    const uint32_t distance = kDistances[distance_symbol].base + bits_(kDistances[distance_symbol].extra_bits);
    if (distance > at_ || length > size_ - at_) throw StreamError("a copy goes past the text");
    for (uint32_t index = 0; index < length; index++) {
      if (text_[at_ + index] != text_[at_ + index - distance]) throw StreamError("a copy is not what the text has");
    }
    piece.copied = static_cast<uint16_t>(length);
    piece.distance_less_one = static_cast<uint16_t>(distance - 1);
    taken_.shortest_copy = std::min(taken_.shortest_copy, length);
    taken_.farthest = std::max(taken_.farthest, distance);
    taken_.copies_first |= distance == at_;
    at_ += length;
  }

  streams::BitReader bits_;
  const uint8_t* text_;
  size_t size_;
  size_t at_ = 0;
  TakenStream taken_;
};

}  // namespace

TakenStream TakeApart(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size) { return Taker(stream, size, text, text_size).Take(); }

TakenStream TakeSome(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size, size_t bytes) { return Taker(stream, size, text, text_size).TakeSome(bytes); }

}  // namespace whittle::deflate
