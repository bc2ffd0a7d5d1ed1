// Binary arithmetic coder: 32-bit carryless, 16-bit probabilities. Models are written once, as templates over the
// coder: Code(bit, p) writes `bit` and returns it, or ignores its argument and returns the bit it read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace whittle::codec {

/** Encodes binary decisions. Call Finish once, after the last. */
class RangeEncoder {
 public:
  static constexpr bool kEncodes = true;

  /** `probability`: that the bit is 1, of 65536; from 1 to 65535. */
  int Code(int bit, uint32_t probability) {
    const uint32_t middle = low_ + static_cast<uint32_t>((static_cast<uint64_t>(high_ - low_) * probability) >> 16);
    if (bit) high_ = middle; else low_ = middle + 1;
    while (((low_ ^ high_) >> 24) == 0) {
      bytes_.push_back(static_cast<uint8_t>(high_ >> 24));
      low_ <<= 8;
      high_ = (high_ << 8) | 255;
    }
    return bit;
  }

  /** Bytes written so far, for statistics. */
  size_t size() const { return bytes_.size(); }

  /** Ends the stream with as few bytes as tell it apart (the decoder reads zeros past the end), and starts a new one. */
  std::vector<uint8_t> Finish() {
    for (int kept = 0; kept <= 4; kept++) {
      const uint32_t mask = kept == 4 ? 0 : 0xffffffffu >> (8 * kept);
      const uint64_t value = (static_cast<uint64_t>(low_) + mask) & ~static_cast<uint64_t>(mask);
      if (value > high_) continue;
      for (int index = 0; index < kept; index++) bytes_.push_back(static_cast<uint8_t>(value >> (24 - 8 * index)));
      break;
    }
    std::vector<uint8_t> result;
    result.swap(bytes_);
    low_ = 0;
    high_ = 0xffffffffu;
    return result;
  }

 private:
  uint32_t low_ = 0;
  uint32_t high_ = 0xffffffffu;
  std::vector<uint8_t> bytes_;
};

/** Decodes what RangeEncoder wrote. Never reads outside its bytes: past their end it reads zeros. */
class RangeDecoder {
 public:
  static constexpr bool kEncodes = false;

  /** The bytes are borrowed. */
  void Start(const uint8_t* bytes, size_t size) {
    next_ = bytes;
    end_ = bytes + size;
    low_ = 0;
    high_ = 0xffffffffu;
    value_ = 0;
    missing_ = 0;
    for (int index = 0; index < 4; index++) value_ = (value_ << 8) | NextByte();
  }

  int Code(int, uint32_t probability) {
    const uint32_t middle = low_ + static_cast<uint32_t>((static_cast<uint64_t>(high_ - low_) * probability) >> 16);
    const int bit = value_ <= middle;
    if (bit) high_ = middle; else low_ = middle + 1;
    while (((low_ ^ high_) >> 24) == 0) {
      low_ <<= 8;
      high_ = (high_ << 8) | 255;
      value_ = (value_ << 8) | NextByte();
    }
    return bit;
  }

  /** True when every byte was needed. A well-formed stream has neither bytes left over nor ends early by more than zeros. */
  bool AtEnd() const { return next_ == end_; }
  /** False when more zeros were read past the end than a well-formed stream leaves out. */
  bool IsSound() const { return missing_ <= 4; }

 private:
  uint32_t NextByte() {
    if (next_ != end_) return *next_++;
    missing_++;
    return 0;
  }

  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  uint32_t low_ = 0;
  uint32_t high_ = 0xffffffffu;
  uint32_t value_ = 0;
  uint64_t missing_ = 0;
};

}  // namespace whittle::codec
