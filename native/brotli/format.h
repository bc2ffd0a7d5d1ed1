// What RFC 7932 lays down, as far as a stream can be told from its text: the static dictionary's words are not needed, only how
// long they are and what transforms add and take away.
#pragma once

#include <cstddef>
#include <cstdint>

namespace whittle::brotli {

/** Texts are at most so long: places in them are numbers of 32 bits. */
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 31;

/** A range of lengths that one symbol stands for: the least, and how many extra bits tell it. */
struct LengthRange {
  uint32_t base;
  int extra_bits;
};

constexpr int kLengthCodes = 24;
extern const LengthRange kInsertLengths[kLengthCodes];
extern const LengthRange kCopyLengths[kLengthCodes];

constexpr int kBlockCountCodes = 26;
extern const LengthRange kBlockCounts[kBlockCountCodes];

constexpr int kLiteralAlphabet = 256;
constexpr int kCommandAlphabet = 704;
/** Symbols of insert and copy lengths below this have no distance symbol: it is the last distance. */
constexpr int kImplicitDistances = 128;

/** The range of `lengths` that a length lies in. */
int LengthCode(const LengthRange* lengths, uint32_t length);
/** The symbol of an insert and a copy length code; -1 when there is none without a distance symbol. */
int CommandSymbol(int insert_code, int copy_code, bool is_implicit);
/** The insert and copy length codes of a symbol. */
void SplitCommand(int symbol, int& insert_code, int& copy_code);

/** Distance symbols below this are one of the last four distances, changed by at most 3. */
constexpr int kRingCodes = 16;
/** Which of the last four distances such a symbol changes, and by how much. */
extern const uint8_t kRingPlaces[kRingCodes];
extern const int8_t kRingChanges[kRingCodes];

/** Symbols of the other distances, as a metablock lays them down. */
class DistanceCodes {
 public:
  DistanceCodes() = default;
  DistanceCodes(int postfix_bits, int direct) : postfix_bits_(postfix_bits), direct_(direct) {}

  int alphabet() const { return kRingCodes + direct_ + (48 << postfix_bits_); }
  /** Extra bits of a symbol. */
  int ExtraBits(int symbol) const;
  /** The distance of a symbol from kRingCodes on. */
  uint32_t Distance(int symbol, uint32_t extra) const;
  /** The symbol and extra bits of a distance; false when it is too far for any. */
  bool Find(uint32_t distance, int& symbol, uint32_t& extra) const;

 private:
  int postfix_bits_ = 0;
  int direct_ = 0;
};

constexpr uint32_t kShortestWord = 4, kLongestWord = 24;
constexpr uint32_t kTransforms = 121;
/** Log2 of the number of words of a length. */
extern const uint8_t kWordBits[kLongestWord + 1];
/** Length of what a transform makes of a word. */
uint32_t TransformedLength(uint32_t transform, uint32_t word_length);

/** The context of a literal after two bytes, 0 to 63; `mode` 0 to 3. */
int LiteralContext(int mode, uint8_t last, uint8_t before_last);
/** The context of a distance symbol, 0 to 3. */
inline int DistanceContext(uint32_t copy_length) { return copy_length > 4 ? 3 : static_cast<int>(copy_length) - 2; }

}  // namespace whittle::brotli
