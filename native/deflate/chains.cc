#include "deflate/chains.h"

namespace whittle::deflate {

Chains::Chains(const uint8_t* text, size_t size, const Habits& habits)
    : text_(text), size_(size), habits_(habits), manner_(kManners[habits.manner]), hashed_(habits.hashing == Hashing::kFour ? 4 : 3), farthest_(habits.Farthest()),
      first_(habits.skips_first ? 1 : 0), heads_(size_t{1} << 16, kNone), previous_(kMask + 1, kNone) {}

uint32_t Chains::HashAt(size_t place) const {
  const uint8_t* bytes = text_ + place;
  if (habits_.hashing == Hashing::kZlib) {
    const int shift = (habits_.hash_bits + 2) / 3;
    return ((static_cast<uint32_t>(bytes[0]) << 2 * shift) ^ (static_cast<uint32_t>(bytes[1]) << shift) ^ bytes[2]) & ((1u << habits_.hash_bits) - 1);
  }
  uint32_t number = static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 | static_cast<uint32_t>(bytes[2]) << 16;
  if (habits_.hashing == Hashing::kFour) number |= static_cast<uint32_t>(bytes[3]) << 24;
  return (number * 0x9e3779b1u) >> 16;
}

bool Chains::EnterUpTo(size_t place) {
  if (place + hashed_ > size_) return false;
  for (; entered_ <= place; entered_++) {
    uint32_t& head = heads_[HashAt(entered_)];
    previous_[entered_ & kMask] = head;
    head = static_cast<uint32_t>(entered_);
  }
  return true;
}

Match Chains::Find(size_t place, uint32_t longer_than) {
  if (!EnterUpTo(place)) return {};
  const uint32_t limit = static_cast<uint32_t>(std::min<size_t>(kLongestCopy, size_ - place));
  Match best{longer_than, 0};
  uint32_t depth = Depth(place, longer_than >= manner_.good ? std::max(manner_.depth >> 2, 1) : manner_.depth);
  for (uint32_t at = Before(static_cast<uint32_t>(place), place); at != kNone && depth > 0 && best.length < limit; at = Before(at, place), depth--) {
    steps_++;
    if (text_[at + best.length] != text_[place + best.length] || text_[at] != text_[place]) continue;
    const uint32_t distance = static_cast<uint32_t>(place - at), length = Length(place, distance, limit);
    steps_ += length / 16;
    if (length <= best.length) continue;
    best = {length, distance};
    if (length >= manner_.nice) break;
  }
  if (best.distance == 0) return {};
  return best.length < 6 && (habits_.is_filtered || (best.length == kShortestCopy && best.distance > manner_.too_far)) ? Match{} : best;
}

Outlook Chains::LookAhead(size_t place) {
  Outlook look;
  look.here = ahead_at_ == place ? ahead_ : Find(place, kShortestCopy - 1);
  if (look.here.length > 0 && look.here.length < manner_.lazy) look.next = Find(place + 1, look.here.length);
  if (look.next.length > 0) ahead_ = look.next, ahead_at_ = place + 1;
  return look;
}

int Chains::List(size_t place, Match* found) {
  if (!EnterUpTo(place)) return 0;
  const uint32_t limit = static_cast<uint32_t>(std::min<size_t>(kLongestCopy, size_ - place));
  int count = 0;
  uint32_t longest = kShortestCopy - 1, depth = Depth(place, manner_.depth);
  for (uint32_t at = Before(static_cast<uint32_t>(place), place); at != kNone && depth > 0 && longest < limit && count < kListed; at = Before(at, place), depth--) {
    steps_++;
    if (text_[at + longest] != text_[place + longest] || text_[at] != text_[place]) continue;
    const uint32_t distance = static_cast<uint32_t>(place - at), length = Length(place, distance, limit);
    steps_ += length / 16;
    if (length <= longest) continue;
    longest = length;
    found[count++] = {length, distance};
  }
  return count;
}

uint32_t Chains::FindFarther(size_t place, uint32_t length, uint32_t distance) {
  if (!EnterUpTo(place) || length > size_ - place) return 0;
  uint32_t depth = Depth(place, 1024);
  for (uint32_t at = Before(static_cast<uint32_t>(place), place); at != kNone && depth > 0; at = Before(at, place), depth--) {
    steps_++;
    if (place - at <= distance || text_[at + length - 1] != text_[place + length - 1]) continue;
    steps_ += length / 16;
    if (Length(place, static_cast<uint32_t>(place - at), length) == length) return static_cast<uint32_t>(place - at);
  }
  return 0;
}

void Chains::Pass(size_t place, uint32_t copied) {
  if (copied <= manner_.inserted || copied > place) return;
  EnterUpTo(place - copied);
  entered_ = std::max(entered_, place);
}

}  // namespace whittle::deflate
