// The encoder's face.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/decode.h"
#include "codec/op_model.h"
#include "common/content.h"

namespace whittle::codec {

/** One file of a segment: ops ascend by new_position, do not overlap, and lie within target and sources. */
struct EncodeFile {
  std::vector<Content> sources;
  Content target;
  std::vector<Op> ops;
};

struct EncodeStats {
  uint64_t op_bytes = 0, residue_bytes = 0, literal_bytes = 0;  // of the streams
  uint64_t ops = 0, copied = 0, literal = 0;                    // counts, and target bytes
};

/** Encodes segments; models persist from one to the next. Throws CodedError when content cannot be read; is of no more use then. */
class Encoder {
 public:
  virtual ~Encoder() = default;
  /** Encodes the files, with up to `threads` threads; the result does not depend on their number. */
  virtual std::vector<uint8_t> Segment(const std::vector<EncodeFile>& files, int threads, EncodeStats& stats) = 0;
};

std::unique_ptr<Encoder> MakeEncoder(ProfileName profile);

}  // namespace whittle::codec
