#include "brotli/prefix_code.h"

#include <algorithm>

namespace whittle::brotli {

PrefixCode PrefixCode::Single(int symbol) {
  PrefixCode code;
  code.single_ = symbol;
  return code;
}

PrefixCode::PrefixCode(std::vector<uint8_t> lengths) : lengths_(std::move(lengths)) {
  for (const uint8_t length : lengths_) counts_[length] += length > 0;
  int used = 0, space = 0;
  for (int length = 1; length <= kLongestCode; length++) {
    used += counts_[length];
    space += counts_[length] << (kLongestCode - length);
  }
  if (used == 1) {
    single_ = static_cast<int>(std::find_if(lengths_.begin(), lengths_.end(), [](uint8_t length) { return length > 0; }) - lengths_.begin());
    return;
  }
  if (space != 1 << kLongestCode) throw StreamError("a code is not complete");
  codes_.resize(lengths_.size());
  symbols_.resize(used);
  uint32_t codes[kLongestCode + 2] = {};
  int places[kLongestCode + 2] = {};
  for (int length = 1; length <= kLongestCode; length++) {
    codes[length + 1] = (codes[length] + counts_[length]) << 1;
    places[length + 1] = places[length] + counts_[length];
  }
  for (size_t symbol = 0; symbol < lengths_.size(); symbol++) {
    const int length = lengths_[symbol];
    if (length == 0) continue;
    const uint32_t code = codes[length]++;
    for (int bit = 0; bit < length; bit++) codes_[symbol] |= static_cast<uint16_t>((code >> bit & 1) << (length - 1 - bit));
    symbols_[places[length]++] = static_cast<uint16_t>(symbol);
  }
}

}  // namespace whittle::brotli
