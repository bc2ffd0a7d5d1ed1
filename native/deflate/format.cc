#include "deflate/format.h"

namespace whittle::deflate {

const NumberRange kLengths[] = {{3, 0},  {4, 0},  {5, 0},  {6, 0},  {7, 0},  {8, 0},  {9, 0},  {10, 0},  {11, 1},  {13, 1},  {15, 1},  {17, 1},  {19, 2},  {23, 2}, {27, 2},
                                {31, 2}, {35, 3}, {43, 3}, {51, 3}, {59, 3}, {67, 4}, {83, 4}, {99, 4}, {115, 4}, {131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0}};
const NumberRange kDistances[] = {{1, 0},   {2, 0},   {3, 0},   {4, 0},   {5, 1},   {7, 1},    {9, 2},    {13, 2},   {17, 3},   {25, 3},   {33, 4},   {49, 4},   {65, 5},    {97, 5},    {129, 6},
                                  {193, 6}, {257, 7}, {385, 7}, {513, 8}, {769, 8}, {1025, 9}, {1537, 9}, {2049, 10}, {3073, 10}, {4097, 11}, {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13}};
const uint8_t kRunOrder[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
const NumberRange kRuns[] = {{3, 2}, {3, 3}, {11, 7}};

Told LengthTold(uint32_t length) {
  int at = 0;
  if (length == kLongestCopy) {
    at = kLiteralSymbols - kFirstLength - 1;
  } else if (length < 11) {
    at = static_cast<int>(length - 3);
  } else {
    // From 11 on each power of two has four symbols.
    const int bits = 29 - __builtin_clz(length - 3);
    at = 4 * bits + static_cast<int>((length - 3) >> bits);
  }
  return {kFirstLength + at, length - kLengths[at].base, kLengths[at].extra_bits};
}

Told DistanceTold(uint32_t distance) {
  int at = static_cast<int>(distance) - 1;
  if (distance > 4) {
    const int bits = 30 - __builtin_clz(distance - 1);
    at = 2 * bits + static_cast<int>((distance - 1) >> bits);
  }
  return {at, distance - kDistances[at].base, kDistances[at].extra_bits};
}

}  // namespace whittle::deflate
