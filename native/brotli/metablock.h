// The head of a compressed metablock (RFC 7932, section 9.2): what its symbols are coded with. Read through a port.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "brotli/format.h"
#include "brotli/prefix_code.h"

namespace whittle::brotli {

/** A number from 1 to 256. */
template <typename Bits>
uint32_t ReadCount(Bits&& bits) {
  if (bits(1) == 0) return 1;
  const int extra = static_cast<int>(bits(3));
  return (1u << extra) + 1 + bits(extra);
}

/** How the symbols of one category are split into blocks of types. */
class BlockTypes {
 public:
  /** Where in its blocks a category is. */
  struct Place {
    uint32_t type = 0, before = 1;
    /** Symbols left of the block. */
    uint32_t left = 0xffffffffu;
  };

  template <typename Bits>
  void Read(Bits&& bits, Place& place) {
    count_ = ReadCount(bits);
    place = {};
    if (count_ == 1) return;
    types_ = ReadPrefixCode(bits, static_cast<int>(count_) + 2);
    lengths_ = ReadPrefixCode(bits, kBlockCountCodes);
    place.left = ReadLength(bits);
  }

  uint32_t count() const { return count_; }

  /** Counts a symbol, which begins the next block where one ended. */
  template <typename Bits>
  void Next(Bits&& bits, Place& place) const {
    if (place.left == 0) {
      const uint32_t code = static_cast<uint32_t>(types_.Read(bits));
      const uint32_t type = code == 0 ? place.before : code == 1 ? (place.type + 1) % count_ : code - 2;
      place = {type, place.type, ReadLength(bits)};
    }
    place.left--;
  }

 private:
  template <typename Bits>
  uint32_t ReadLength(Bits&& bits) const {
    const LengthRange& range = kBlockCounts[lengths_.Read(bits)];
    return range.base + bits(range.extra_bits);
  }

  uint32_t count_ = 1;
  PrefixCode types_, lengths_;
};

/** Which code is used in a context. */
struct ContextMap {
  uint32_t codes = 1;
  std::vector<uint8_t> code_of;

  template <typename Bits>
  void Read(Bits&& bits, size_t contexts) {
    code_of.assign(contexts, 0);
    codes = ReadCount(bits);
    if (codes == 1) return;
    const int longest_run = bits(1) == 0 ? 0 : static_cast<int>(bits(4)) + 1;
    const PrefixCode code = ReadPrefixCode(bits, static_cast<int>(codes) + longest_run);
    for (size_t at = 0; at < contexts;) {
      const int symbol = code.Read(bits);
      if (symbol > longest_run) {
        code_of[at++] = static_cast<uint8_t>(symbol - longest_run);
        continue;
      }
      const size_t run = (size_t{1} << symbol) + bits(symbol);
      if (run > contexts - at) throw StreamError("a context map is too long");
      at += run;
    }
    if (bits(1) == 1) UndoMoveToFront();
  }

 private:
  void UndoMoveToFront() {
    uint8_t order[256];
    std::iota(order, order + 256, uint8_t{0});
    for (uint8_t& code : code_of) {
      const uint8_t place = code;
      code = order[place];
      for (int index = place; index > 0; index--) order[index] = order[index - 1];
      order[0] = code;
    }
  }
};

/** The head of a compressed metablock. */
struct Metablock {
  enum Category { kLiterals, kCommands, kDistances };

  BlockTypes types[3];
  BlockTypes::Place places[3];
  DistanceCodes distance_codes;
  std::vector<uint8_t> literal_modes;
  ContextMap literal_map, distance_map;
  std::vector<PrefixCode> codes[3];

  template <typename Bits>
  void Read(Bits&& bits) {
    for (int category = 0; category < 3; category++) types[category].Read(bits, places[category]);
    const int postfix_bits = static_cast<int>(bits(2));
    distance_codes = DistanceCodes(postfix_bits, static_cast<int>(bits(4)) << postfix_bits);
    literal_modes.resize(types[kLiterals].count());
    for (uint8_t& mode : literal_modes) mode = static_cast<uint8_t>(bits(2));
    literal_map.Read(bits, size_t{64} * types[kLiterals].count());
    distance_map.Read(bits, size_t{4} * types[kDistances].count());
    const uint32_t counts[3] = {literal_map.codes, types[kCommands].count(), distance_map.codes};
    const int alphabets[3] = {kLiteralAlphabet, kCommandAlphabet, distance_codes.alphabet()};
    for (int category = 0; category < 3; category++) {
      codes[category].clear();
      for (uint32_t index = 0; index < counts[category]; index++) codes[category].push_back(ReadPrefixCode(bits, alphabets[category]));
    }
  }

  /** The code of a literal behind two bytes; of a command; of the distance of a copy. */
  const PrefixCode& LiteralCode(const BlockTypes::Place& place, uint8_t last, uint8_t before_last) const {
    return codes[kLiterals][literal_map.code_of[64 * place.type + static_cast<uint32_t>(LiteralContext(literal_modes[place.type], last, before_last))]];
  }
  const PrefixCode& CommandCode(const BlockTypes::Place& place) const { return codes[kCommands][place.type]; }
  const PrefixCode& DistanceCode(const BlockTypes::Place& place, uint32_t copy) const {
    return codes[kDistances][distance_map.code_of[4 * place.type + static_cast<uint32_t>(DistanceContext(copy))]];
  }
};

}  // namespace whittle::brotli
