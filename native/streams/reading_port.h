// The port of a walker over a stream that is at hand.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "codec/range_coder.h"
#include "streams/choices.h"

namespace whittle::streams {

/** Bits of a stream, the lowest first. */
class BitReader {
 public:
  BitReader(const uint8_t* bytes, size_t size) : bytes_(bytes), bits_(static_cast<uint64_t>(size) * 8) {}

  uint32_t operator()(int count) {
    if (static_cast<uint64_t>(count) > bits_ - at_) throw StreamError("the stream ends too early");
    uint32_t result = 0;
    for (int done = 0; done < count;) {
      const int within = static_cast<int>(at_ & 7), some = std::min(8 - within, count - done);
      result |= (static_cast<uint32_t>(bytes_[at_ >> 3]) >> within & ((1u << some) - 1)) << done;
      done += some;
      at_ += static_cast<uint64_t>(some);
    }
    return result;
  }

  int BitsOver() const { return static_cast<int>(at_ & 7); }
  bool AtEnd() const { return at_ == bits_; }

 private:
  const uint8_t* bytes_;
  uint64_t bits_;
  uint64_t at_ = 0;
};

/** Has the stream, codes what is not known of it, and proves what is. */
class ReadingPort {
 public:
  using Coder = codec::RangeEncoder;

  ReadingPort(const uint8_t* stream, size_t size) : reader_(stream, size) {}

  Coder& coder() { return encoder_; }
  uint32_t Bits(int count) { return CodeBits(encoder_, reader_(count), count); }
  void Put(uint32_t bits, int count) {
    if (reader_(count) != bits) throw StreamError("the stream has other bits");
  }
  int BitsOver() const { return reader_.BitsOver(); }
  void CheckSound() const {}
  BitReader Peek() const { return reader_; }
  bool AtEnd() const { return reader_.AtEnd(); }

 private:
  Coder encoder_;
  BitReader reader_;
};

}  // namespace whittle::streams
