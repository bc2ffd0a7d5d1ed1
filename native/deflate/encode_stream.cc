#include "deflate/encode_stream.h"

#include "deflate/encode_blocks.h"
#include "deflate/stream_walker.h"
#include "streams/reading_port.h"

namespace whittle::deflate {

namespace {

/** A walk has taken more than it may. */
struct TooMuch {};

/** Has the stream, and its blocks in their order. */
class TakenPort : public streams::ReadingPort {
 public:
  /** What is coded may take `most` bytes. */
  TakenPort(const TakenStream& taken, const uint8_t* stream, size_t size, size_t most = SIZE_MAX) : ReadingPort(stream, size), taken_(taken), most_(most) {}

  /** Throws TooMuch. */
  void CheckSound() {
    if (coder().size() > most_) throw TooMuch();
  }

  const Block& Next() { return taken_.blocks[next_++]; }
  uint8_t last_filling() const { return taken_.last_filling; }

 private:
  const TakenStream& taken_;
  size_t most_;
  size_t next_ = 0;
};

/** Finds out how an encoder looked for matches, by what the stream would take to be told. */
class HabitFinder {
 public:
  HabitFinder(const TakenStream& taken, const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size)
      : taken_(taken), stream_(stream), size_(size), text_(text), text_size_(text_size), sample_(std::min(text_size, std::clamp(text_size / 4, kLeastSample, kMostSample))) {}

  Habits Find() {
    best_ = Surveyed();
    best_cost_ = Cost(best_, SIZE_MAX);
    // Most are zlib's. What is told in next to nothing was made so.
    for (const Hashing hashing : {Hashing::kZlib, Hashing::kFour, Hashing::kThree}) {
      for (const uint8_t manner : {5, 8, 0, 3, 11, 14}) Try(hashing, manner);
    }
    const Hashing hashing = best_.hashing;
    for (uint8_t manner = 0; manner < kMannerCount; manner++) Try(hashing, manner);
    for (const uint8_t bits : {16, 14, 13, 12, 11, 10, 9, 8}) {
      Habits habits = best_;
      habits.hash_bits = bits;
      if (hashing == Hashing::kZlib) Try(habits);
    }
    return best_;
  }

 private:
  /** A quarter of the text is looked at, within these bounds; and a stream that takes one byte in so many is told well enough. */
  static constexpr size_t kLeastSample = size_t{64} << 10, kMostSample = size_t{256} << 10, kWellTold = 128;

  /** What the stream says outright. */
  Habits Surveyed() const {
    Habits habits;
    habits.is_filtered = taken_.shortest_copy > 5;
    habits.skips_first = !taken_.copies_first;
    habits.window_bits = 9;
    while (habits.window_bits < 15 && taken_.farthest > habits.Farthest()) habits.window_bits++;
    habits.keeps_ready = taken_.farthest <= habits.Farthest();
    // A short text tells nothing of the window.
    if (taken_.farthest < 16384 && habits.window_bits > 9 && text_size_ < (size_t{1} << 16)) habits.window_bits = 15;
    // zlib's hash has a bit more than its blocks' symbols, of which there is one less than a power of two.
    const uint64_t room = taken_.blocks[0].count + 1;
    if (taken_.blocks.size() > 1 && room >= 128 && room <= 32768 && (room & (room - 1)) == 0) habits.hash_bits = static_cast<uint8_t>(streams::BitLength(static_cast<uint32_t>(room)));
    return habits;
  }

  /** About so many bytes of the stream are looked at. */
  size_t sampled() const { return static_cast<size_t>(uint64_t{size_} * sample_ / std::max<size_t>(text_size_, 1)); }

  /** What habits take to tell the stream as far as it is looked at; more than `most` when that is more. */
  size_t Cost(const Habits& habits, size_t most) const {
    TakenPort port(taken_, stream_, size_, most);
    try {
      StreamWalker<TakenPort>(port, text_, text_size_, habits).WalkSome(sample_);
    } catch (const TooMuch&) {
      // That is all there is to know.
    }
    return port.coder().size();
  }

  void Try(Hashing hashing, uint8_t manner) {
    Habits habits = best_;
    habits.hashing = hashing;
    habits.manner = manner;
    Try(habits);
  }
  void Try(const Habits& habits) {
    if (best_cost_ <= sampled() / kWellTold + 8) return;
    const size_t cost = Cost(habits, best_cost_);
    if (cost < best_cost_) best_ = habits, best_cost_ = cost;
  }

  const TakenStream& taken_;
  const uint8_t* stream_;
  size_t size_;
  const uint8_t* text_;
  size_t text_size_;
  size_t sample_;
  Habits best_;
  size_t best_cost_ = 0;
};

}  // namespace

std::vector<uint8_t> FindDecisions(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size) {
  try {
    const TakenStream taken = TakeApart(stream, size, text, text_size);
    TakenPort port(taken, stream, size);
    StreamWalker<TakenPort>(port, text, text_size, HabitFinder(taken, stream, size, text, text_size).Find()).Walk();
    if (port.AtEnd()) return port.coder().Finish();
  } catch (const StreamError&) {
    // Another text, or no stream at all.
  }
  return {};
}

}  // namespace whittle::deflate
