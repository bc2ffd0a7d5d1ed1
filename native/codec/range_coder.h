// Binary arithmetic coder: a range of 32 bits, 16-bit probabilities, bytes in pairs. Models are written once, as templates
// over the coder: Code(bit, p) writes `bit` and returns it, or ignores its argument and returns the bit it read.
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
    const uint32_t bound = static_cast<uint32_t>((static_cast<uint64_t>(range_) * probability) >> 16);
    if (bit) range_ = bound; else Skip(bound, range_ - bound);
    Normalize();
    return bit;
  }

  /** A number of `bits` bits, at most 8, of which each value is as likely as another. */
  uint32_t CodeEven(uint32_t number, int bits) {
    const uint32_t step = range_ >> bits;
    Skip(number * step, step);
    Normalize();
    return number;
  }

  /** Bytes written so far, for statistics. */
  size_t size() const { return bytes_.size(); }

  /** Ends the stream with as few bytes as tell it apart (the decoder reads zeros past the end), and starts a new one. */
  std::vector<uint8_t> Finish() {
    const uint64_t high = static_cast<uint64_t>(low_) + range_ - 1;
    for (int kept = 0; kept <= 4; kept++) {
      const uint32_t mask = kept == 4 ? 0 : 0xffffffffu >> (8 * kept);
      const uint64_t value = (static_cast<uint64_t>(low_) + mask) & ~static_cast<uint64_t>(mask);
      if (value > high) continue;
      if (value >> 32) Carry();
      for (int index = 0; index < kept; index++) bytes_.push_back(static_cast<uint8_t>(value >> (24 - 8 * index)));
      break;
    }
    std::vector<uint8_t> result;
    result.swap(bytes_);
    low_ = 0;
    range_ = 0xffffffffu;
    return result;
  }

 private:
  /** What is coded lies so far `above`, in a range that is now so large. */
  void Skip(uint32_t above, uint32_t range) {
    low_ += above;
    if (low_ < above) Carry();
    range_ = range;
  }
  void Carry() {
    for (size_t index = bytes_.size(); index-- > 0 && ++bytes_[index] == 0;) {}
  }
  void Normalize() {
    if (range_ >> 16 != 0) return;
    bytes_.push_back(static_cast<uint8_t>(low_ >> 24));
    bytes_.push_back(static_cast<uint8_t>(low_ >> 16));
    low_ <<= 16;
    range_ <<= 16;
  }

  uint32_t low_ = 0;
  uint32_t range_ = 0xffffffffu;
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
    range_ = 0xffffffffu;
    missing_ = 0;
    value_ = 0;
    for (int pair = 0; pair < 2; pair++) value_ = value_ << 16 | NextPair();
  }

  /** No branch on the bit, which is hard to foresee. */
  int Code(int, uint32_t probability) {
    const uint32_t bound = static_cast<uint32_t>((static_cast<uint64_t>(range_) * probability) >> 16);
    const int bit = value_ < bound;
    const uint32_t zero = static_cast<uint32_t>(bit) - 1;  // all ones when the bit is 0
    value_ -= bound & zero;
    range_ = bound + ((range_ - 2 * bound) & zero);
    Normalize();
    return bit;
  }

  uint32_t CodeEven(uint32_t, int bits) {
    const uint32_t step = range_ >> bits;
    const uint32_t most = (1u << bits) - 1, ratio = value_ / step;
    const uint32_t number = ratio < most ? ratio : most;
    value_ -= number * step;
    range_ = step;
    Normalize();
    return number;
  }

  /** True when every byte was needed. A well-formed stream has neither bytes left over nor ends early by more than zeros. */
  bool AtEnd() const { return next_ == end_; }
  /** False when more zeros were read past the end than a well-formed stream leaves out. */
  bool IsSound() const { return missing_ <= 4; }

 private:
  void Normalize() {
    if (range_ >> 16 != 0) return;
    range_ <<= 16;
    value_ = value_ << 16 | NextPair();
  }
  uint32_t NextPair() {
    if (end_ - next_ >= 2) {
      next_ += 2;
      return static_cast<uint32_t>(next_[-2] << 8 | next_[-1]);
    }
    const uint32_t first = NextByte();
    return first << 8 | NextByte();
  }
  uint32_t NextByte() {
    if (next_ != end_) return *next_++;
    missing_++;
    return 0;
  }

  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  uint32_t range_ = 0xffffffffu;
  uint32_t value_ = 0;
  uint64_t missing_ = 0;
};

/**
 * A coder for the length of a few decisions: a decoder's state is copied and put back, so that it stays in registers while
 * bytes are written that might, for all a compiler knows, be part of it. Others are referred to.
 */
template <class Coder>
class Held {
 public:
  explicit Held(Coder& coder) : coder_(coder) {}
  int Code(int bit, uint32_t probability) { return coder_.Code(bit, probability); }

 private:
  Coder& coder_;
};

template <>
class Held<RangeDecoder> {
 public:
  explicit Held(RangeDecoder& coder) : copy_(coder), coder_(coder) {}
  ~Held() { coder_ = copy_; }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  int Code(int bit, uint32_t probability) { return copy_.Code(bit, probability); }

 private:
  RangeDecoder copy_;
  RangeDecoder& coder_;
};

}  // namespace whittle::codec
