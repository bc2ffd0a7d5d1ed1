// The port of a walker over a stream that is made again.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/range_coder.h"
#include "streams/choices.h"

namespace whittle::streams {

/** Decodes what is not known of a stream, and writes all of it. */
class WritingPort {
 public:
  using Coder = codec::RangeDecoder;

  WritingPort(const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size) : next_(stream), end_(stream + size) { decoder_.Start(decisions, decisions_size); }

  Coder& coder() { return decoder_; }

  uint32_t Bits(int count) {
    const uint32_t bits = CodeBits(decoder_, 0, count);
    Put(bits, count);
    return bits;
  }

  void Put(uint32_t bits, int count) {
    held_ |= static_cast<uint64_t>(bits) << held_bits_;
    for (held_bits_ += count; held_bits_ >= 8; held_bits_ -= 8, held_ >>= 8) {
      if (next_ == end_) throw StreamError("a stream comes out too long");
      *next_++ = static_cast<uint8_t>(held_);
    }
  }

  int BitsOver() const { return held_bits_; }
  void CheckSound() const {
    if (!decoder_.IsSound()) throw StreamError("decisions end too early");
  }
  bool IsDone() const { return next_ == end_ && decoder_.AtEnd() && decoder_.IsSound(); }

 private:
  Coder decoder_;
  uint8_t* next_;
  uint8_t* end_;
  uint64_t held_ = 0;
  int held_bits_ = 0;
};

}  // namespace whittle::streams
