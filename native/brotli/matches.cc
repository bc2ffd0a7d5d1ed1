#include "brotli/matches.h"

namespace whittle::brotli {

namespace {

constexpr int kHashBits = 16;
/** Places that a chain goes back. A place that is asked for may lie so much behind the last that was entered. */
constexpr size_t kWindow = size_t{1} << 20;
constexpr size_t kSlack = size_t{1} << 14;
/** How many places are looked at. */
constexpr int kReachDepth = 16;
constexpr int kListDepth = 96;
constexpr int kSearchDepth = 1024;
/** Steps of all long looks, for each byte of the text. A comparison counts as one for every eight bytes. */
constexpr uint64_t kSearchSteps = 64;
/** How far back matches of two or three bytes are looked for, as encoders do. */
constexpr size_t kNearby = 64;

size_t WindowFor(size_t size) {
  size_t window = 1024;
  while (window < size && window < kWindow) window <<= 1;
  return window;
}

}  // namespace

Matches::Matches(const uint8_t* text, size_t size)
    : text_(text), size_(size), hash_bits_(kHashBits), mask_(WindowFor(size) - 1), reach_(size <= mask_ ? mask_ : mask_ - kSlack),
      steps_left_(size * kSearchSteps), heads_(size_t{1} << kHashBits, kNone), previous_(mask_ + 1, kNone), reaches_(kRemembered), reached_(kRemembered, kNone) {}

size_t Matches::MemoryBytes(size_t size) {
  return ((size_t{1} << kHashBits) + WindowFor(size) + kRemembered) * sizeof(uint32_t) + kRemembered * sizeof(Reach);
}

void Matches::EnterUpTo(size_t place) {
  for (; entered_ <= place; entered_++) {
    uint32_t& head = heads_[HashAt(entered_)];
    previous_[entered_ & mask_] = head;
    head = static_cast<uint32_t>(entered_);
  }
}

Match Matches::Short(size_t place) const {
  Match best;
  if (place + 2 > size_) return best;
  const size_t nearby = std::min(place, kNearby);
  for (size_t distance = 1; distance <= nearby; distance++) {
    if (text_[place - distance] != text_[place] || text_[place - distance + 1] != text_[place + 1]) continue;
    const uint32_t length = Length(place, static_cast<uint32_t>(distance), kHashed - 1);
    if (length > best.length) best = {length, static_cast<uint32_t>(distance)};
    if (length == kHashed - 1) break;
  }
  return best;
}

const Reach& Matches::ReachAt(size_t place) {
  static const Reach nothing;
  if (place >= size_) return nothing;
  Reach& reach = reaches_[place % kRemembered];
  if (reached_[place % kRemembered] == place) return reach;
  reached_[place % kRemembered] = static_cast<uint32_t>(place);
  reach = {};
  if (place + kHashed <= size_) {
    EnterUpTo(place);
    uint32_t at = Before(place, place);
    for (int depth = 0; depth < kReachDepth && at != kNone; depth++, at = Before(at, place)) {
      if (at + reach.longest.length >= size_ || place + reach.longest.length >= size_) break;
      if (text_[at + reach.longest.length] != text_[place + reach.longest.length]) continue;
      const uint32_t distance = static_cast<uint32_t>(place - at);
      const uint32_t length = Length(place, distance, kLongestMatch);
      if (length <= reach.longest.length || length < kHashed) continue;
      reach.longest = {length, distance};
      if (reach.nearest.length == 0) reach.nearest = reach.longest;
      if (length == kLongestMatch) break;
    }
  }
  if (reach.longest.length == 0) reach.longest = reach.nearest = Short(place);
  return reach;
}

int Matches::List(size_t place, uint32_t farthest, Match* found) {
  int count = 0;
  const Match brief = Short(place);
  if (brief.length > 0 && brief.distance <= farthest) found[count++] = brief;
  if (place + kHashed > size_) return count;
  EnterUpTo(place);
  uint32_t longest = kHashed - 1;
  uint32_t at = Before(place, place);
  for (int depth = 0; depth < kListDepth && at != kNone && count < kListed; depth++, at = Before(at, place)) {
    const uint32_t distance = static_cast<uint32_t>(place - at);
    if (distance > farthest || place + longest >= size_) break;
    if (text_[at + longest] != text_[place + longest]) continue;
    const uint32_t length = Length(place, distance, kLongestMatch);
    if (length <= longest) continue;
    longest = length;
    found[count++] = {length, distance};
    if (length == kLongestMatch) break;
  }
  return count;
}

uint32_t Matches::Search(size_t place, uint32_t length, uint32_t from, uint32_t farthest) {
  if (length < kHashed || length > kLongestMatch || place + length > size_) return 0;
  EnterUpTo(place);
  uint32_t at = Before(place, place);
  for (int depth = 0; depth < kSearchDepth && at != kNone; depth++, at = Before(at, place)) {
    const uint32_t distance = static_cast<uint32_t>(place - at);
    const uint64_t steps = 1 + length / 8;
    if (distance > farthest || steps_left_ < steps) break;
    steps_left_--;
    if (distance < from || text_[at + length - 1] != text_[place + length - 1]) continue;
    steps_left_ -= steps - 1;
    if (Length(place, distance, length) == length) return distance;
  }
  return 0;
}

}  // namespace whittle::brotli
