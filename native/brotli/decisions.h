// What an encoder chose when it made a stream: where copies are, how long, and from where. Each choice is one of those that the
// text leaves, and is told by its place among them. Written once over the coder, as the models of native/codec are: with a
// RangeEncoder what is wanted is coded, with a RangeDecoder it is ignored and what is coded comes back.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "brotli/format.h"
#include "brotli/matches.h"
#include "brotli/prefix_code.h"
#include "codec/mixing.h"
#include "streams/choices.h"

namespace whittle::brotli {

using streams::BitLength;
using streams::CodeBits;
using streams::MixedBit;
using streams::Near;
using streams::Step;
using streams::StreamError;
using streams::Symbol;

/** The last four distances. */
struct Ring {
  uint32_t last[4] = {4, 11, 15, 16};

  /** The distance that one of the first kRingCodes symbols means; 0 when it is none. */
  uint32_t Distance(int symbol) const {
    const int64_t distance = int64_t{last[kRingPlaces[symbol]]} + kRingChanges[symbol];
    return distance > 0 ? static_cast<uint32_t>(distance) : 0;
  }
  void Push(uint32_t distance) {
    for (int place = 3; place > 0; place--) last[place] = last[place - 1];
    last[0] = distance;
  }
};

/** One command of a stream: literals, then a copy or a word of the static dictionary. */
struct Command {
  uint32_t insert = 0;
  /** Length of the copy or, untransformed, of the word. Of no meaning in a command that ends its metablock with literals. */
  uint32_t copy = 0;
  bool is_implicit = false;
  int distance_symbol = 0;
  uint32_t distance_extra = 0;
  uint32_t distance = 0;
};

/** Where a command stands. */
struct Surroundings {
  /** Its first byte in the text, and the end of its metablock. */
  size_t place = 0, end = 0;
  Ring ring;
  DistanceCodes codes;
  /** Distances of copies, at a place behind so many bytes at least, are at most this; those beyond mean words. */
  uint32_t window = 0;

  uint32_t Farthest(size_t at) const { return static_cast<uint32_t>(std::min<size_t>(at, window)); }
};

/** The choices of one stream, in their order. */
template <class Coder>
class Decisions {
 public:
  /** Both are borrowed. */
  Decisions(Coder& coder, Matches& matches) : coder_(coder), matches_(matches) {}

  /** Codes a command. Throws StreamError when the wanted one does not fit the text. */
  Command Code(const Command& wanted, const Surroundings& around) {
    Command command;
    const size_t left = around.end - around.place;
    while (command.insert < left && !StartsHere(around.place + command.insert, command.insert, around.ring, wanted.insert == command.insert)) command.insert++;
    const size_t at = around.place + command.insert;
    if (at == around.end) {
      command.copy = CodeLength(wanted.copy);
      command.is_implicit = CodeFlag(implicit_, wanted.is_implicit);
      return command;
    }
    Choose(command, wanted, at, around);
    const bool may_be_implicit = command.distance_symbol == 0 && CommandSymbol(LengthCode(kInsertLengths, command.insert), LengthCode(kCopyLengths, command.copy), true) >= 0;
    command.is_implicit = may_be_implicit && CodeFlag(implicit_, wanted.is_implicit);
    return command;
  }

 private:
  /** How the encoder came by a distance that is not listed. */
  enum Rare { kWord, kFar, kPlain };

  bool CodeFlag(codec::AdaptiveBit& state, bool flag) { return codec::CodeAdaptive(coder_, state, flag, 250) == 1; }

  uint32_t CodeLength(uint32_t length) {
    const int wanted = LengthCode(kCopyLengths, length);
    const int code = length_.Code(coder_, wanted);
    if (code >= kLengthCodes) throw StreamError("a length has an unknown code");
    return kCopyLengths[code].base + CodeBits(coder_, length - kCopyLengths[wanted].base, kCopyLengths[code].extra_bits);
  }

  /** Whether the literals end here, after `literals` of them. */
  bool StartsHere(size_t at, uint32_t literals, const Ring& ring, bool wanted) {
    const Reach here = matches_.ReachAt(at), next = matches_.ReachAt(at + 1), after = matches_.ReachAt(at + 2);
    uint32_t again = 0, again_any = 0;
    for (int place = 0; place < 4; place++) {
      const uint32_t length = matches_.Length(at, ring.last[place], 128);
      if (place == 0) again = length;
      again_any = std::max(again_any, length);
    }
    const uint32_t again_next = matches_.Length(at + 1, ring.last[0], 128);
    const uint32_t length = Step(here.longest.length), bits = BitLength(here.longest.distance), run = std::min(literals, 3u);
    const int64_t gain = int64_t{next.longest.length} + 1 - here.longest.length, gain_after = int64_t{after.longest.length} + 2 - here.longest.length;
    const std::array<uint32_t, 8> contexts = {
        (length << 5 | bits) << 5 | Step(again),
        ((length << 5 | Step(next.longest.length)) << 5 | Step(after.longest.length)) << 2 | run,
        ((Near(gain) << 5 | Near(gain_after)) << 5 | bits) << 7 | length << 2 | run,
        (starts_ & 255) << 5 | length,
        (static_cast<uint32_t>(matches_.At(at)) << 8 | (at > 0 ? matches_.At(at - 1) : 0)) << 2 | run,
        ((length << 5 | bits) << 5 | BitLength(next.longest.distance)) << 5 | Near(gain),
        ((Step(again) << 5 | Step(again_any)) << 5 | length) << 5 | Step(again_next),
        ((Step(here.nearest.length) << 5 | BitLength(here.nearest.distance)) << 5 | length) << 5 | Near(gain)};
    const bool starts = start_.Code(coder_, wanted, contexts, length + (literals > 0 ? 32 : 0)) == 1;
    starts_ = starts_ << 1 | (starts ? 1 : 0);
    return starts;
  }

  /** Codes distance and length of the copy, or the word, at `at`. */
  void Choose(Command& command, const Command& wanted, size_t at, const Surroundings& around) {
    const uint32_t farthest = around.Farthest(at);
    const uint32_t limit = static_cast<uint32_t>(std::min<size_t>(kLongestMatch, around.end - at));
    Match found[Matches::kListed];
    const int count = matches_.List(at, farthest, found);
    if (ChooseAgain(command, wanted, at, around.ring, farthest, limit, found, count)) return;
    if (ChooseListed(command, wanted, at, around.codes, limit, found, count)) return;
    ChooseRare(command, wanted, at, around, found, count);
  }

  /** One of the last distances, or one near to them. */
  bool ChooseAgain(Command& command, const Command& wanted, size_t at, const Ring& ring, uint32_t farthest, uint32_t limit, const Match* found, int count) {
    const Match longest = count > 0 ? found[count - 1] : Match{};
    const uint32_t bits = BitLength(longest.distance);
    uint32_t rejected = 0;
    for (int symbol = 0; symbol < kRingCodes; symbol++) {
      const uint32_t distance = ring.Distance(symbol);
      if (distance > farthest) continue;
      const uint32_t length = matches_.Length(at, distance, limit);
      if (length < (symbol < 4 ? 2 : 3)) continue;
      uint32_t nearer = 0;
      for (int index = 0; index < count && found[index].distance <= distance; index++) nearer = found[index].length;
      const uint32_t key = static_cast<uint32_t>(symbol) << 5 | Step(length);
      const std::array<uint32_t, 7> contexts = {
          key << 5 | Step(longest.length),
          key << 5 | bits,
          (key << 5 | Step(int64_t{longest.length} - length)) << 5 | bits,
          static_cast<uint32_t>(symbol) << 8 | (starts_ & 255),
          key << 5 | rejected,
          key << 5 | BitLength(distance),
          (key << 5 | Step(nearer)) << 5 | bits};
      if (again_.Code(coder_, wanted.distance_symbol == symbol, contexts, std::min(symbol, 4) * 4 + std::min(command.insert, 3u)) == 1) {
        command.distance_symbol = symbol;
        command.distance = distance;
        command.copy = ChooseLength(wanted.copy, at, length, limit, 1, true);
        return true;
      }
      rejected = std::max(rejected, Step(length));
    }
    return false;
  }

  /** One of the listed matches, from the longest to the nearest. */
  bool ChooseListed(Command& command, const Command& wanted, size_t at, const DistanceCodes& codes, uint32_t limit, const Match* found, int count) {
    for (int index = count - 1; index >= 0; index--) {
      const Match match = found[index];
      const uint32_t lower = index > 0 ? found[index - 1].length : 1, upper = index + 1 < count ? found[index + 1].length : 0;
      const uint32_t bits = BitLength(match.distance), nearer = index > 0 ? BitLength(found[index - 1].distance) : 0;
      const uint32_t length = Step(match.length), rejected = static_cast<uint32_t>(std::min(count - 1 - index, 7));
      const std::array<uint32_t, 7> contexts = {
          (length << 5 | bits) << 5 | Step(upper > 0 ? upper - match.length : 0),
          ((length << 5 | Step(lower)) << 5 | bits) << 5 | nearer,
          rejected << 3 | static_cast<uint32_t>(std::min(index, 7)),
          (Step(match.length - lower) << 5 | (bits - nearer + 32)) << 3 | rejected,
          length << 2 | std::min(command.insert, 3u),
          Step(matches_.ReachAt(at + match.length).longest.length) << 5 | length,
          ((length << 5 | Step(lower)) << 5 | Step(upper)) << 2 | std::min(rejected, 3u)};
      // Short matches are measured no farther than they are short.
      const bool is_wanted = wanted.distance_symbol >= kRingCodes && wanted.distance == match.distance && (wanted.copy <= match.length || match.length == kLongestMatch);
      if (listed_.Code(coder_, is_wanted, contexts, rejected * 8 + std::min(index, 7)) == 0) continue;
      command.distance = match.distance;
      if (!codes.Find(command.distance, command.distance_symbol, command.distance_extra)) throw StreamError("a distance has no symbol");
      command.copy = ChooseLength(wanted.copy, at, std::min(match.length, limit), limit, lower, false);
      return true;
    }
    return false;
  }

  /** How much is taken of a match of `most` bytes; `lower` of them there are nearer by. */
  uint32_t ChooseLength(uint32_t wanted, size_t at, uint32_t most, uint32_t limit, uint32_t lower, bool is_again) {
    const bool is_capped = most == kLongestMatch && limit == kLongestMatch;
    if (wanted > most && !is_capped && Coder::kEncodes) throw StreamError("a copy is not what the text has");
    const size_t end = at + most;
    const Reach next = matches_.ReachAt(end);
    const uint32_t behind = Step(next.longest.length);
    int64_t best = 0;
    uint32_t best_back = 0;
    for (uint32_t back = 1; back <= kBack && most > std::max(1u, lower) + back; back++) {
      const int64_t gain = GainAt(end, back, next.longest.length);
      if (gain > best) best = gain, best_back = back;
    }
    if (most > 2) {
      const uint32_t key = Step(best) << 4 | best_back;
      const uint32_t near = Near(GainAt(end, 1, next.longest.length)) << 5 | Near(GainAt(end, 2, next.longest.length));
      const std::array<uint32_t, 7> contexts = {
          (Step(most) << 5 | Step(lower)) << 5 | behind,
          key << 5 | behind,
          (key << 5 | Step(most)) << 5 | behind,
          near << 5 | Step(most),
          static_cast<uint32_t>(matches_.At(end)) << 8 | matches_.At(end - 1),
          Step(most) << 1 | (is_again ? 1 : 0),
          (static_cast<uint32_t>(matches_.At(end)) << 5 | behind) << 5 | Step(best)};
      if (whole_.Code(coder_, wanted >= most, contexts, behind + (is_again ? 32 : 0)) == 0) return ChooseEnd(wanted, at, most, lower, next.longest.length, Step(best) << 4 | best_back);
    }
    return is_capped ? CodeLength(std::max(wanted, most)) : most;
  }

  /** How much farther a match gets that starts so much before an end than one that starts there. */
  int64_t GainAt(size_t end, uint32_t back, uint32_t next) { return int64_t{matches_.ReachAt(end - back).longest.length} - back - next; }

  /** Where a copy ends that is shorter than its match. */
  uint32_t ChooseEnd(uint32_t wanted, size_t at, uint32_t most, uint32_t lower, uint32_t next, uint32_t best) {
    uint32_t length = most - 1;
    for (; length > 2; length--) {
      // Far from the end nothing is known, and looking at every place takes its time.
      if (most - length > kFarBack) return CodeLength(wanted);
      const size_t end = at + length;
      const uint32_t back = most - length, few = std::min(back, 16u);
      const uint32_t here = matches_.ReachAt(end).longest.length, before = matches_.ReachAt(end - 1).longest.length;
      const std::array<uint32_t, 6> contexts = {
          Step(here) << 5 | Step(before),
          Step(int64_t{here} - back - next) << 5 | few,
          (Near(int64_t{before} - 1 - here) << 5 | Step(here)) << 5 | Step(length),
          few << 5 | Step(most),
          static_cast<uint32_t>(matches_.At(end)) << 8 | matches_.At(end - 1),
          best << 5 | few};
      if (end_.Code(coder_, wanted == length, contexts, few + (length <= lower ? 32 : 0)) == 1) break;
    }
    return length;
  }

  /** A word, a match farther away than those listed, or whatever else. */
  void ChooseRare(Command& command, const Command& wanted, size_t at, const Surroundings& around, const Match* found, int count) {
    const uint32_t farthest = around.Farthest(at);
    const int kind = rare_.Code(coder_, KindOf(wanted, farthest));
    if (kind == kWord) {
      ChooseWord(command, wanted, farthest);
      if (!around.codes.Find(command.distance, command.distance_symbol, command.distance_extra)) throw StreamError("a word has no symbol");
      return;
    }
    command.copy = CodeLength(wanted.copy);
    if (kind == kFar) {
      uint32_t from = 1;
      for (int index = 0; index < count && from == 1; index++) {
        if (found[index].length >= command.copy) from = found[index].distance + 1;
      }
      command.distance = matches_.Search(at, command.copy, from, farthest);
      if (command.distance > 0 && CodeFlag(found_, wanted.distance == command.distance)) {
        if (!around.codes.Find(command.distance, command.distance_symbol, command.distance_extra)) throw StreamError("a distance has no symbol");
        return;
      }
    }
    command.distance_symbol = static_cast<int>(CodeBits(coder_, static_cast<uint32_t>(wanted.distance_symbol), 10));
    if (command.distance_symbol >= around.codes.alphabet()) throw StreamError("an unknown distance symbol");
    const bool is_again = command.distance_symbol < kRingCodes;
    if (!is_again) command.distance_extra = CodeBits(coder_, wanted.distance_extra, around.codes.ExtraBits(command.distance_symbol));
    command.distance = is_again ? around.ring.Distance(command.distance_symbol) : around.codes.Distance(command.distance_symbol, command.distance_extra);
  }

  static Rare KindOf(const Command& wanted, uint32_t farthest) {
    if (wanted.distance_symbol < kRingCodes) return kPlain;
    if (wanted.distance > farthest) return kWord;
    return wanted.copy < 4 ? kPlain : kFar;
  }

  void ChooseWord(Command& command, const Command& wanted, uint32_t farthest) {
    const uint32_t id = wanted.distance - farthest - 1;
    command.copy = static_cast<uint32_t>(word_length_.Code(coder_, static_cast<int>(wanted.copy)));
    if (command.copy < kShortestWord || command.copy > kLongestWord) throw StreamError("a word has an unknown length");
    const int bits = kWordBits[command.copy];
    const uint32_t word = CodeBits(coder_, id & ((1u << bits) - 1), bits);
    const uint32_t transform = static_cast<uint32_t>(transform_.Code(coder_, static_cast<int>(id >> bits)));
    command.distance = farthest + 1 + (transform << bits | word);
  }

  /** So far back from the end of a match a better one is looked for; so far its bytes are asked about one by one. */
  static constexpr uint32_t kBack = 6, kFarBack = 32;

  Coder& coder_;
  Matches& matches_;
  /** At which of the last places copies started. */
  uint32_t starts_ = 0;
  MixedBit start_, again_, listed_, whole_, end_;
  Symbol<5> length_, word_length_;
  Symbol<7> transform_;
  Symbol<2> rare_;
  codec::AdaptiveBit implicit_, found_;
};

}  // namespace whittle::brotli
