// The decoder's face: bounded memory, hostile streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/content.h"

namespace whittle::codec {

/** Decodes segments of files. Throws CodedError DELTA_CORRUPT or BASIS_DAMAGED; is of no more use then. Not for two threads at once. */
class Decoder {
 public:
  virtual ~Decoder() = default;
  /** Takes the next segment's streams. The segment before must have been read to its end. */
  virtual void Segment(const uint8_t* streams, size_t size) = 0;
  /** Starts the segment's next file. The one before must have been read to its end. */
  virtual void Begin(const std::vector<Content>& sources, uint64_t size) = 0;
  /** Writes the file's next bytes, `size` of them or what is left; returns how many. */
  virtual size_t Next(uint8_t* out, size_t size) = 0;
  /** Throws unless the last segment was read to its end and nothing is left over. */
  virtual void End() = 0;
};

enum class ProfileName { kSmall, kFast };

std::unique_ptr<Decoder> MakeDecoder(ProfileName profile);

/** Upper bound of the memory of one Decoder, in bytes, besides the streams of its current segment. */
size_t DecoderMemoryBytes(ProfileName profile);

}  // namespace whittle::codec
