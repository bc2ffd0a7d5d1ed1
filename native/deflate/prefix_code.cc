#include "deflate/prefix_code.h"

#include <algorithm>

namespace whittle::deflate {

const FixedLengths kFixedLengths;

FixedLengths::FixedLengths() {
  for (int symbol = 0; symbol < kMostSymbols; symbol++) literals[symbol] = symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8;
  std::fill(distances, distances + kDistanceSymbols, uint8_t{5});
}

void PrefixCode::Set(const uint8_t* lengths, int symbols) {
  uint32_t next[kLongestCode + 2] = {};
  int counts[kLongestCode + 1] = {};
  for (int symbol = 0; symbol < symbols; symbol++) counts[lengths[symbol]]++;
  counts[0] = 0;
  for (int length = 1; length <= kLongestCode; length++) next[length + 1] = (next[length] + static_cast<uint32_t>(counts[length])) << 1;
  std::fill(lengths_, lengths_ + kMostSymbols, uint8_t{0});
  for (int symbol = 0; symbol < symbols; symbol++) {
    const int length = lengths[symbol];
    lengths_[symbol] = static_cast<uint8_t>(length);
    if (length == 0) continue;
    const uint32_t code = next[length]++;
    bits_[symbol] = 0;
    for (int bit = 0; bit < length; bit++) bits_[symbol] |= static_cast<uint16_t>((code >> bit & 1) << (length - 1 - bit));
  }
}

PrefixReader::PrefixReader(const uint8_t* lengths, int symbols) {
  for (int symbol = 0; symbol < symbols; symbol++) counts_[lengths[symbol]]++;
  counts_[0] = 0;
  int places[kLongestCode + 2] = {}, space = 1 << kLongestCode;
  for (int length = 1; length <= kLongestCode; length++) {
    places[length + 1] = places[length] + counts_[length];
    space -= counts_[length] << (kLongestCode - length);
  }
  if (space < 0) throw StreamError("a code has too many symbols");
  for (int symbol = 0; symbol < symbols; symbol++) {
    if (lengths[symbol] > 0) symbols_[places[lengths[symbol]]++] = static_cast<uint16_t>(symbol);
  }
}

namespace {

/** Symbols that a code is for: those that occur, and the first of the others up to two. */
int Used(const uint32_t* frequencies, int symbols, uint32_t* counted, uint16_t* used) {
  int count = 0, last = -1;
  for (int symbol = 0; symbol < symbols; symbol++) {
    counted[symbol] = frequencies[symbol];
    if (frequencies[symbol] > 0) used[count++] = static_cast<uint16_t>(last = symbol);
  }
  while (count < 2) {
    const int symbol = last < 2 ? ++last : 0;
    counted[symbol] = 1;
    used[count++] = static_cast<uint16_t>(symbol);
  }
  return count;
}

/** A heap of nodes, the rarest first, of equally rare ones the shallowest. */
class Heap {
 public:
  uint32_t frequencies[2 * kMostSymbols];
  uint8_t depths[2 * kMostSymbols] = {};
  uint16_t nodes[kMostSymbols];
  int size = 0;

  void Sink(int from) {
    const uint16_t node = nodes[from];
    int at = from;
    for (int child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && IsBefore(nodes[child + 1], nodes[child])) child++;
      if (IsBefore(node, nodes[child])) break;
      nodes[at] = nodes[child];
      at = child;
    }
    nodes[at] = node;
  }
  uint16_t Take() {
    const uint16_t least = nodes[0];
    nodes[0] = nodes[--size];
    Sink(0);
    return least;
  }

 private:
  bool IsBefore(uint16_t a, uint16_t b) const { return frequencies[a] < frequencies[b] || (frequencies[a] == frequencies[b] && depths[a] <= depths[b]); }
};

}  // namespace

void HeapLengths(const uint32_t* frequencies, int symbols, int longest, uint8_t* lengths) {
  Heap heap;
  heap.size = Used(frequencies, symbols, heap.frequencies, heap.nodes);
  for (int at = heap.size / 2 - 1; at >= 0; at--) heap.Sink(at);
  // Nodes in the order in which the tree took them; the root is the last.
  uint16_t taken[2 * kMostSymbols], parents[2 * kMostSymbols];
  int count = 0;
  for (int node = symbols; heap.size > 1; node++) {
    const uint16_t least = heap.Take(), second = heap.nodes[0];
    taken[count++] = least;
    taken[count++] = second;
    heap.frequencies[node] = heap.frequencies[least] + heap.frequencies[second];
    heap.depths[node] = static_cast<uint8_t>(std::max(heap.depths[least], heap.depths[second]) + 1);
    parents[least] = parents[second] = static_cast<uint16_t>(node);
    heap.nodes[0] = static_cast<uint16_t>(node);
    heap.Sink(0);
  }
  uint8_t deep[2 * kMostSymbols] = {};
  int counts[kLongestCode + 1] = {}, too_long = 0;
  for (int at = count - 1; at >= 0; at--) {
    const uint16_t node = taken[at];
    // The root, which was not taken, is 0 deep.
    int length = deep[parents[node]] + 1;
    if (length > longest) length = longest, too_long++;
    deep[node] = static_cast<uint8_t>(length);
    if (node < symbols) counts[length]++;
  }
  const bool is_shortened = too_long > 0;
  for (; too_long > 0; too_long -= 2) {
    int length = longest - 1;
    while (counts[length] == 0) length--;
    counts[length]--;
    counts[length + 1] += 2;
    counts[longest]--;
  }
  std::fill(lengths, lengths + symbols, uint8_t{0});
  if (!is_shortened) {
    for (int index = 0; index < count; index++) if (taken[index] < symbols) lengths[taken[index]] = deep[taken[index]];
    return;
  }
  // The rarest symbols get the longest codes.
  int at = 0;
  for (int length = longest; length > 0; length--) {
    for (int left = counts[length]; left > 0; left--) {
      while (taken[at] >= symbols) at++;
      lengths[taken[at++]] = static_cast<uint8_t>(length);
    }
  }
}

void SortedLengths(const uint32_t* frequencies, int symbols, int longest, uint8_t* lengths) {
  uint32_t counted[kMostSymbols];
  uint16_t used[kMostSymbols];
  const int count = Used(frequencies, symbols, counted, used);
  std::sort(used, used + count, [&counted](uint16_t a, uint16_t b) { return counted[a] < counted[b] || (counted[a] == counted[b] && a < b); });
  // Leaves in their order, and the nodes made of them, of which each is as frequent at least as the one before.
  uint32_t made[kMostSymbols];
  int made_parents[kMostSymbols], leaf = 0, next = 0;
  for (int node = 0; node < count - 1; node++) {
    made[node] = 0;
    for (int child = 0; child < 2; child++) {
      if (leaf < count && (next == node || counted[used[leaf]] <= made[next])) {
        made[node] += counted[used[leaf++]];
      } else {
        made[node] += made[next];
        made_parents[next++] = node;
      }
    }
  }
  int depths[kMostSymbols], counts[kLongestCode + 1] = {};
  depths[count - 2] = 0;
  for (int node = count - 3; node >= 0; node--) depths[node] = depths[made_parents[node]] + 1;
  // From the top down; what would be too deep takes the place of the deepest that may still be lengthened.
  counts[1] = 2;
  for (int node = count - 3; node >= 0; node--) {
    int length = depths[node];
    if (length >= longest) {
      length = longest - 1;
      while (counts[length] == 0) length--;
    }
    counts[length]--;
    counts[length + 1] += 2;
  }
  std::fill(lengths, lengths + symbols, uint8_t{0});
  int at = 0;
  for (int length = longest; length > 0; length--) {
    for (int left = counts[length]; left > 0; left--) lengths[used[at++]] = static_cast<uint8_t>(length);
  }
}

}  // namespace whittle::deflate
