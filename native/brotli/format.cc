#include "brotli/format.h"

namespace whittle::brotli {

const LengthRange kInsertLengths[kLengthCodes] = {{0, 0},   {1, 0},   {2, 0},   {3, 0},   {4, 0},   {5, 0},    {6, 1},    {8, 1},
                                                  {10, 2},  {14, 2},  {18, 3},  {26, 3},  {34, 4},  {50, 4},   {66, 5},   {98, 5},
                                                  {130, 6}, {194, 7}, {322, 8}, {578, 9}, {1090, 10}, {2114, 12}, {6210, 14}, {22594, 24}};
const LengthRange kCopyLengths[kLengthCodes] = {{2, 0},  {3, 0},  {4, 0},   {5, 0},   {6, 0},   {7, 0},   {8, 0},    {9, 0},
                                                {10, 1}, {12, 1}, {14, 2},  {18, 2},  {22, 3},  {30, 3},  {38, 4},   {54, 4},
                                                {70, 5}, {102, 5}, {134, 6}, {198, 7}, {326, 8}, {582, 9}, {1094, 10}, {2118, 24}};
const LengthRange kBlockCounts[kBlockCountCodes] = {{1, 2},   {5, 2},   {9, 2},   {13, 2},  {17, 3},  {25, 3},   {33, 3},   {41, 3},    {49, 4},
                                                    {65, 4},  {81, 4},  {97, 4},  {113, 5}, {145, 5}, {177, 5},  {209, 5},  {241, 6},   {305, 6},
                                                    {369, 7}, {497, 8}, {753, 9}, {1265, 10}, {2289, 11}, {4337, 12}, {8433, 13}, {16625, 24}};
const uint8_t kRingPlaces[kRingCodes] = {0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1};
const int8_t kRingChanges[kRingCodes] = {0, 0, 0, 0, -1, 1, -2, 2, -3, 3, -1, 1, -2, 2, -3, 3};
const uint8_t kWordBits[kLongestWord + 1] = {0, 0, 0, 0, 10, 10, 11, 11, 10, 10, 10, 10, 10, 9, 9, 8, 7, 7, 8, 7, 7, 6, 6, 5, 5};

int LengthCode(const LengthRange* lengths, uint32_t length) {
  int code = kLengthCodes - 1;
  while (code > 0 && lengths[code].base > length) code--;
  return code;
}

namespace {

/** The cells of 64 symbols: eight insert length codes from the first, eight copy length codes from the second. */
constexpr uint8_t kCells[11][2] = {{0, 0}, {0, 8}, {0, 0}, {0, 8}, {8, 0}, {8, 8}, {0, 16}, {16, 0}, {8, 16}, {16, 8}, {16, 16}};

}  // namespace

int CommandSymbol(int insert_code, int copy_code, bool is_implicit) {
  for (int cell = is_implicit ? 0 : 2; cell < (is_implicit ? 2 : 11); cell++) {
    if (kCells[cell][0] == (insert_code & ~7) && kCells[cell][1] == (copy_code & ~7)) return cell << 6 | (insert_code & 7) << 3 | (copy_code & 7);
  }
  return -1;
}

void SplitCommand(int symbol, int& insert_code, int& copy_code) {
  const uint8_t* cell = kCells[symbol >> 6];
  insert_code = cell[0] + (symbol >> 3 & 7);
  copy_code = cell[1] + (symbol & 7);
}

int DistanceCodes::ExtraBits(int symbol) const {
  const int beyond = symbol - kRingCodes - direct_;
  return beyond < 0 ? 0 : 1 + (beyond >> (postfix_bits_ + 1));
}

uint32_t DistanceCodes::Distance(int symbol, uint32_t extra) const {
  const int beyond = symbol - kRingCodes - direct_;
  if (beyond < 0) return static_cast<uint32_t>(symbol - kRingCodes + 1);
  const uint32_t upper = static_cast<uint32_t>(beyond) >> postfix_bits_;
  const uint32_t lower = static_cast<uint32_t>(beyond) & ((1u << postfix_bits_) - 1);
  const uint32_t offset = ((2 + (upper & 1)) << ExtraBits(symbol)) - 4;
  return ((offset + extra) << postfix_bits_) + lower + static_cast<uint32_t>(direct_) + 1;
}

bool DistanceCodes::Find(uint32_t distance, int& symbol, uint32_t& extra) const {
  extra = 0;
  if (distance <= static_cast<uint32_t>(direct_)) {
    symbol = kRingCodes - 1 + static_cast<int>(distance);
    return distance > 0;
  }
  const uint32_t beyond = distance - static_cast<uint32_t>(direct_) - 1;
  const uint32_t offset = (beyond >> postfix_bits_) + 4;
  const int bits = 30 - __builtin_clz(offset);
  const uint32_t upper = 2u * static_cast<uint32_t>(bits - 1) + (offset >> bits & 1);
  symbol = kRingCodes + direct_ + static_cast<int>(upper << postfix_bits_ | (beyond & ((1u << postfix_bits_) - 1)));
  extra = offset & ((1u << bits) - 1);
  return bits <= 24;
}

namespace {

/** Bytes that each transform puts before and behind the word. */
constexpr uint8_t kAdded[kTransforms] = {
    0, 1, 2, 0, 1, 5, 1, 3, 4, 0, 5, 0, 0, 3, 2, 2, 4, 4, 3, 1, 1, 2, 1, 0, 1, 5, 0, 0, 3, 6, 1, 2, 1, 3, 0, 6, 1, 6, 4, 0, 0,
    5, 0, 6, 0, 4, 4, 4, 0, 4, 2, 1, 3, 3, 0, 0, 0, 1, 2, 0, 4, 3, 9, 0, 0, 3, 1, 2, 1, 2, 2, 2, 5, 13, 1, 7, 1, 2, 1, 1, 5, 3,
    3, 2, 3, 1, 2, 1, 2, 2, 4, 3, 4, 5, 1, 4, 2, 2, 3, 1, 4, 1, 2, 2, 2, 2, 4, 2, 2, 2, 3, 3, 1, 1, 2, 2, 2, 3, 3, 3, 3};
/** Bytes that each transform leaves out of the word; those not named leave out none. */
constexpr uint8_t kOmitted[65] = {0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 2, 0, 0, 0, 0, 0,
                                  0, 4, 0, 0, 0, 0, 5, 6, 0, 4, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 9, 7, 6, 0, 0, 8, 0, 0, 0, 5, 9};

}  // namespace

uint32_t TransformedLength(uint32_t transform, uint32_t word_length) {
  const uint32_t omitted = transform < sizeof kOmitted ? kOmitted[transform] : 0;
  return kAdded[transform] + (word_length > omitted ? word_length - omitted : 0);
}

namespace {

/** What a byte below 128 says of the literal behind it where text is expected: two bits for the byte before it come in. */
constexpr uint8_t kTextKinds[128] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  4,  4,  0,  0,  4,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
    8,  12, 16, 12, 12, 20, 12, 16, 24, 28, 12, 12, 32, 12, 36, 12, 44, 44, 44, 44, 44, 44, 44, 44, 44, 44, 32, 32, 24, 40, 28, 12,
    12, 48, 52, 52, 52, 48, 52, 52, 52, 48, 52, 52, 52, 52, 52, 48, 52, 52, 52, 52, 52, 48, 52, 52, 52, 52, 52, 24, 12, 28, 12, 12,
    12, 56, 60, 60, 60, 56, 60, 60, 60, 56, 60, 60, 60, 60, 60, 56, 60, 60, 60, 60, 60, 56, 60, 60, 60, 60, 60, 24, 12, 28, 12, 0};

int TextKind(uint8_t last) { return last < 128 ? kTextKinds[last] : (last >> 6 & 1) * 2 + (last & 1); }

int TextKindBefore(uint8_t byte) {
  if (byte >= 'a' && byte <= 'z') return 3;
  if ((byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte >= 224) return 2;
  return byte > 32 && byte < 127;
}

int SignedKind(uint8_t byte) {
  if (byte < 128) return byte == 0 ? 0 : byte < 16 ? 1 : byte < 64 ? 2 : 3;
  return byte < 192 ? 4 : byte < 240 ? 5 : byte < 255 ? 6 : 7;
}

}  // namespace

int LiteralContext(int mode, uint8_t last, uint8_t before_last) {
  switch (mode) {
    case 0: return last & 63;
    case 1: return last >> 2;
    case 2: return TextKind(last) | TextKindBefore(before_last);
    default: return SignedKind(last) << 3 | SignedKind(before_last);
  }
}

}  // namespace whittle::brotli
