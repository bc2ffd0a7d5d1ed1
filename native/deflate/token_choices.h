// What an encoder chose at each place of a text: a literal, or which copy.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "deflate/chains.h"
#include "deflate/format.h"
#include "deflate/prefix_code.h"
#include "streams/choices.h"

namespace whittle::deflate {

/** The choices of one stream, in their order. Written once over the coder, as the models of native/codec are. */
template <class Coder>
class TokenChoices {
 public:
  /** The text is borrowed, and the coder. */
  TokenChoices(Coder& coder, const uint8_t* text, size_t size, const Habits& habits) : coder_(coder), chains_(text, size, habits), manner_(kManners[habits.manner]) {
    SetCosts(kFixedLengths.literals, kFixedLengths.distances);
  }

  /** Codes what stands at a place of the text: a copy, or a literal, which has no length. Throws StreamError. */
  Match Code(const Match& wanted, size_t at) {
    const Match copy = manner_.weighs ? CodeWeighed(wanted, at) : CodeRuled(wanted, at);
    if (copy.length > 0) chains_.Pass(at + copy.length, copy.length);
    last_ = copy;
    return copy;
  }

  /** Takes what symbols cost in the block before: what an encoder weighs is most like that. */
  void SetCosts(const uint8_t* literal_lengths, const uint8_t* distance_lengths) {
    const auto cost = [](uint8_t length) { return static_cast<uint8_t>(length == 0 ? kUnusedCost : length); };
    std::transform(literal_lengths, literal_lengths + kLiteralSymbols, literal_costs_, cost);
    std::transform(distance_lengths, distance_lengths + kDistanceSymbols, distance_costs_, cost);
  }

 private:
  static constexpr uint8_t kUnusedCost = 13;
  /** So far back from its longest is asked how a copy was cut short. */
  static constexpr uint32_t kFarBack = 32;
  /** How many matches beyond the nearest are asked about. */
  static constexpr int kAsked = 6;
  static constexpr size_t kRemembered = 1024;

  bool CodeFlag(codec::AdaptiveBit& state, bool flag) { return codec::CodeAdaptive(coder_, state, flag, 250) == 1; }

  /** By zlib's rules: the longest match, unless the next place has a longer one. */
  Match CodeRuled(const Match& wanted, size_t at) {
    const auto [here, next] = chains_.LookAhead(at);
    const bool expects_copy = here.length > 0 && next.length == 0;
    const uint32_t length = streams::Step(here.length), bits = streams::BitLength(here.distance);
    const uint32_t kind = (expects_copy ? 2 : here.length > 0 ? 1 : 0) << 1 | (last_.length > 0);
    const std::array<uint32_t, 6> contexts = {
        kind,
        (surprises_ & 15) << 3 | kind,
        (here.length << 9 | next.length) << 3 | kind,
        (length << 5 | bits) << 3 | kind,
        ((length << 5 | streams::Step(next.length)) << 5 | streams::BitLength(next.distance)) << 5 | bits,
        (static_cast<uint32_t>(chains_.At(at)) << 5 | length) << 3 | kind};
    const bool is_copy = copies_.Code(coder_, wanted.length > 0, contexts, kind * 4 + std::min(__builtin_popcount(surprises_ & 255), 3)) == 1;
    surprises_ = surprises_ << 1 | (is_copy != expects_copy ? 1 : 0);
    return is_copy ? CodeCopy(wanted, at, here) : Match{};
  }

  /** The copy at a place that has a longest match, or none. */
  Match CodeCopy(const Match& wanted, size_t at, const Match& here) {
    const uint32_t bits = streams::BitLength(here.distance);
    if (here.length > 0 && CodeFlag(as_found_[std::min(surprises_ & 3, 3u)][bits], wanted.length == here.length && wanted.distance == here.distance)) return here;
    Match copy;
    copy.length = CodeLength(wanted.length, at);
    copy.distance = CodeDistance(wanted, at, copy.length, chains_.FindFarther(at, copy.length, 0));
    return copy;
  }

  /** A length of which little is known. */
  uint32_t CodeLength(uint32_t wanted, size_t at) {
    const uint32_t length = kShortestCopy + static_cast<uint32_t>(lengths_.Code(coder_, static_cast<int>(wanted - kShortestCopy)));
    if (length > chains_.size() - at) throw StreamError("a copy goes past the text");
    return length;
  }

  /** The distance of a copy of this length, which may be that of the nearest match (0: there is none) or of one of the next. */
  uint32_t CodeDistance(const Match& wanted, size_t at, uint32_t length, uint32_t nearest) {
    const uint32_t few = std::min(length, 7u);
    for (int asked = 0; nearest > 0; asked++) {
      if (CodeFlag(nearest_[std::min(asked, 2)][few][streams::BitLength(nearest)], wanted.distance == nearest)) return nearest;
      if (asked == kAsked) break;
      nearest = chains_.FindFarther(at, length, nearest);
    }
    const Told wanted_told = Coder::kEncodes ? DistanceTold(wanted.distance) : Told{};
    const int symbol = distances_.Code(coder_, wanted_told.symbol);
    if (symbol >= kDistanceSymbols) throw StreamError("an unknown distance");
    return kDistances[symbol].base + streams::CodeBits(coder_, wanted_told.extra, kDistances[symbol].extra_bits);
  }

  /** As encoders choose who weigh several ways to go on: told by what is near the place, and what it would cost. */
  Match CodeWeighed(const Match& wanted, size_t at) {
    Match found[Chains::kListed];
    const int count = chains_.List(at, found);
    const Match here = count > 0 ? found[count - 1] : Match{}, next = Look(at + 1), after = Look(at + 2);
    int gain = -kMostGain;
    for (int index = 0; index < count; index++) gain = std::max(gain, GainOf(at, found[index]));
    const int gain_next = GainOf(at + 1, next), gain_after = GainOf(at + 2, after);
    const uint32_t length = streams::Step(here.length), bits = streams::BitLength(here.distance), gains = Gained(gain);
    const uint32_t history = starts_ & 255;
    const std::array<uint32_t, 8> contexts = {
        (length << 5 | bits) << 6 | gains,
        ((length << 5 | streams::Step(next.length)) << 5 | streams::Step(after.length)) << 2 | (history & 3),
        (gains << 6 | Gained(gain_next - gain)) << 6 | Gained(gain_after - gain),
        history << 5 | length,
        (static_cast<uint32_t>(chains_.At(at)) << 8 | (at > 0 ? chains_.At(at - 1) : 0)) << 1 | (here.length > 0),
        ((length << 5 | bits) << 5 | streams::Step(next.length)) << 5 | streams::BitLength(next.distance),
        (gains << 5 | length) << 6 | Gained(gain_next),
        (streams::Near(int64_t{next.length} - here.length) << 5 | streams::Near(int64_t{after.length} - here.length)) << 6 | gains};
    const bool is_copy = copies_.Code(coder_, wanted.length > 0, contexts, length + (last_.length > 0 ? 32 : 0)) == 1;
    starts_ = starts_ << 1 | (is_copy ? 1 : 0);
    return is_copy ? CodeWeighedCopy(wanted, at, found, count) : Match{};
  }

  Match CodeWeighedCopy(const Match& wanted, size_t at, const Match* found, int count) {
    const uint32_t most = count > 0 ? found[count - 1].length : 0;
    Match copy;
    if (count == 0 || CodeFlag(longer_[std::min(count, 3)], wanted.length > most)) {
      copy.length = CodeLength(wanted.length, at);
    } else {
      copy.length = CodeCut(wanted.length, at, found, count);
    }
    int index = 0;
    while (index < count && found[index].length < copy.length) index++;
    copy.distance = CodeDistance(wanted, at, copy.length, index < count ? found[index].distance : chains_.FindFarther(at, copy.length, 0));
    return copy;
  }

  /** How much is taken of the longest of the matches. */
  uint32_t CodeCut(uint32_t wanted, size_t at, const Match* found, int count) {
    const uint32_t most = found[count - 1].length, lower = count > 1 ? found[count - 2].length : 0;
    uint32_t lower_bits = count > 1 ? streams::BitLength(found[count - 2].distance) : 0;
    const uint32_t bits = streams::BitLength(found[count - 1].distance), behind = streams::Step(Look(at + most).length);
    if (most == kShortestCopy) return most;
    int64_t best = 0;
    uint32_t best_back = 0;
    for (uint32_t back = 1; back <= 6 && most >= kShortestCopy + back; back++) {
      const int64_t gain = int64_t{Look(at + most - back).length} - back - Look(at + most).length;
      if (gain > best) best = gain, best_back = back;
    }
    const uint32_t length = streams::Step(most), ahead = streams::Step(best) << 3 | best_back;
    const std::array<uint32_t, 6> contexts = {
        (length << 5 | streams::Step(lower)) << 5 | behind,
        ahead << 5 | behind,
        (ahead << 5 | length) << 1 | (lower + best_back >= most),
        ((streams::Step(most - lower) << 5 | bits) << 5 | lower_bits) << 2 | std::min(length, 3u),
        static_cast<uint32_t>(chains_.At(at + most)) << 8 | chains_.At(at + most - 1),
        (streams::Near(int64_t{most} - lower) << 5 | (bits - lower_bits + 16)) << 5 | length};
    if (whole_.Code(coder_, wanted == most, contexts, behind + (lower > 0 ? 32 : 0)) == 1) return most;
    return CodeEnd(wanted, at, found, count, ahead);
  }

  /** Where a copy ends that is shorter than it might be. */
  uint32_t CodeEnd(uint32_t wanted, size_t at, const Match* found, int count, uint32_t ahead) {
    const uint32_t most = found[count - 1].length;
    int index = count - 1;
    uint32_t length = most - 1;
    for (; length > kShortestCopy; length--) {
      // Far from the end nothing is known, and looking at every place takes its time.
      if (most - length > kFarBack) return CodeLength(wanted, at);
      while (index > 0 && found[index - 1].length >= length) index--;
      const bool is_listed = found[index].length == length;
      const uint32_t back = most - length, few = std::min(back, 15u), saved = streams::BitLength(found[count - 1].distance) - streams::BitLength(found[index].distance);
      const uint32_t behind = Look(at + length).length, before = Look(at + length - 1).length, next = Look(at + most).length;
      const std::array<uint32_t, 6> contexts = {
          (streams::Step(behind) << 5 | streams::Step(before)) << 1 | is_listed,
          (streams::Near(int64_t{behind} - back - next) << 4 | few) << 1 | is_listed,
          (streams::Near(int64_t{before} - 1 - behind) << 5 | streams::Step(length)) << 1 | is_listed,
          (few << 5 | saved) << 1 | is_listed,
          static_cast<uint32_t>(chains_.At(at + length)) << 8 | chains_.At(at + length - 1),
          (ahead << 4 | few) << 1 | is_listed};
      if (ends_.Code(coder_, wanted == length, contexts, few + (is_listed ? 16 : 0)) == 1) break;
    }
    return length;
  }

  /** A quick look, at places that are asked for again. */
  const Match& Look(size_t place) {
    static const Match nothing;
    if (place >= chains_.size()) return nothing;
    const size_t slot = place % kRemembered;
    if (looked_[slot] != place) {
      looked_[slot] = static_cast<uint32_t>(place);
      looks_[slot] = chains_.Find(place, kShortestCopy - 1);
    }
    return looks_[slot];
  }

  /** Bits that a copy saves, as the block before had them. */
  int GainOf(size_t at, const Match& copy) const {
    if (copy.length == 0) return -kMostGain;
    const Told length = LengthTold(copy.length), distance = DistanceTold(copy.distance);
    int gain = -(literal_costs_[length.symbol] + length.extra_bits + distance_costs_[distance.symbol] + distance.extra_bits);
    for (uint32_t place = 0; place < copy.length && gain < kMostGain; place++) gain += literal_costs_[chains_.At(at + place)];
    return gain;
  }
  static constexpr int kMostGain = 40;
  static uint32_t Gained(int gain) { return static_cast<uint32_t>(std::clamp(gain, -16, kMostGain) + 16); }

  Coder& coder_;
  Chains chains_;
  const Manner manner_;
  Match last_;
  /** A match that was found already, and where. */
  /** Which of the last tokens were not what the rules say; which were copies. */
  uint32_t surprises_ = 0, starts_ = 0;
  uint8_t literal_costs_[kLiteralSymbols], distance_costs_[kDistanceSymbols];
  std::vector<Match> looks_ = std::vector<Match>(kRemembered);
  std::vector<uint32_t> looked_ = std::vector<uint32_t>(kRemembered, UINT32_MAX);
  streams::MixedBit copies_, whole_, ends_;
  streams::Symbol<8> lengths_;
  streams::Symbol<5> distances_;
  codec::AdaptiveBit as_found_[4][17], nearest_[3][8][17], longer_[4];
};

}  // namespace whittle::deflate
