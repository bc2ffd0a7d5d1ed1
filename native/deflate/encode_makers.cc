#include "deflate/encode_makers.h"

#include <algorithm>

#include "deflate/chains.h"
#include "deflate/encode_blocks.h"
#include "deflate/habits.h"
#include "deflate/prefix_code.h"

namespace whittle::deflate {

namespace {

constexpr uint8_t kLevels = 9;
/** So much of the text is looked at, and so much of what is chosen there may be another choice: for the ends of streams, and hashes of another size. */
constexpr size_t kLooked = size_t{64} << 10;
constexpr uint32_t kFreeOthers = 1, kChoicesPerOther = 2048;
/** Symbols of the blocks that zlib fills, and the most in one of GNU gzip's. */
constexpr uint64_t kFilled = 16383, kFilledOfMuch = 32767;

/** What an encoder of a manner would choose, held against what was chosen. */
class Follower {
 public:
  Follower(const uint8_t* text, size_t size, const Habits& habits) : chains_(text, size, habits) {}

  /** Whether few of the choices up to the end of the blocks, or of what is looked at, are others than its own. */
  bool Follows(const TakenStream& taken) {
    for (const Block& block : taken.blocks) {
      if (block.kind == BlockKind::kStored) {
        at_ += block.stored;
        continue;
      }
      for (const Piece& piece : block.pieces) {
        for (uint32_t literals = piece.literals; literals > 0 && IsLike(); literals--) Choose({});
        if (piece.copied > 0 && IsLike()) Choose({piece.copied, piece.distance_less_one + 1u});
        if (!IsLike()) return false;
        if (at_ >= kLooked || chains_.Hurries(at_)) return true;
      }
    }
    return true;
  }

 private:
  bool IsLike() const { return others_ <= kFreeOthers + choices_ / kChoicesPerOther; }

  void Choose(const Match& chosen) {
    choices_++;
    const auto [here, next] = chains_.LookAhead(at_);
    const Match own = next.length > 0 ? Match{} : here;
    if (own.length != chosen.length || (own.length > 0 && own.distance != chosen.distance)) others_++;
    at_ += std::max<uint32_t>(chosen.length, 1);
    if (chosen.length > 0) chains_.Pass(at_, chosen.length);
  }

  Chains chains_;
  size_t at_ = 0;
  uint32_t choices_ = 0, others_ = 0;
};

/** Whether a maker ends its first block, which is not its last, with so many symbols. */
bool Ends(Maker maker, uint64_t symbols) {
  switch (maker) {
    case Maker::kZlib: return symbols == kFilled;
    case Maker::kZlibOfMuchMemory: return symbols == kFilledOfMuch;
    // It may also end one early, at each 4096th symbol.
    case Maker::kGnu: return symbols == kFilledOfMuch || symbols % 4096 == 0;
  }
  return true;
}

std::vector<uint8_t> Makers(const TakenStream* taken, const uint8_t* text, size_t text_size) {
  std::vector<uint8_t> likely;
  for (const Maker maker : {Maker::kZlib, Maker::kZlibOfMuchMemory, Maker::kGnu}) {
    if (taken != nullptr && !taken->blocks[0].is_last && taken->blocks[0].kind != BlockKind::kStored && !Ends(maker, taken->blocks[0].count)) continue;
    for (uint8_t level = 1; level <= kLevels; level++) {
      Habits habits;
      habits.manner = static_cast<uint8_t>(level - 1);
      habits.hash_bits = maker == Maker::kZlibOfMuchMemory ? 16 : 15;
      if (taken == nullptr || Follower(text, text_size, habits).Follows(*taken)) likely.push_back(static_cast<uint8_t>(static_cast<int>(maker) * 16 + level));
    }
  }
  return likely;
}

}  // namespace

std::vector<uint8_t> LikelyMakers(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size) {
  try {
    const TakenStream taken = TakeSome(stream, size, text, text_size, kLooked);
    return Makers(&taken, text, text_size);
  } catch (const StreamError&) {
    // As zlib may read it all the same.
    return Makers(nullptr, text, text_size);
  }
}

}  // namespace whittle::deflate
