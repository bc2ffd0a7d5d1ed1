#include "deflate/decode_stream.h"

#include "common/content.h"
#include "deflate/stream_walker.h"
#include "streams/writing_port.h"

namespace whittle::deflate {

namespace {

/** Four kinds of mixed bits, and less than as much again of all else. */
constexpr size_t kModelBytes = size_t{1} << 20;

}  // namespace

void RebuildStream(const uint8_t* text, size_t text_size, const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size) {
  try {
    streams::WritingPort port(decisions, decisions_size, stream, size);
    StreamWalker<streams::WritingPort>(port, text, text_size).Walk();
    if (!port.IsDone()) throw StreamError("a stream comes out too short");
  } catch (const StreamError& error) {
    throw CodedError("DELTA_CORRUPT", std::string("a deflate stream cannot be made again: ") + error.what());
  }
}

size_t RebuildMemoryBytes(size_t text_size) {
  // A block's pieces, of three bytes of text at least: a vector that grows has half as many beside it, and may have room for as many again.
  const size_t pieces = std::min(3 * (text_size / kShortestCopy + 2), kMostPieces + kMostPieces / 2);
  return Chains::kMemoryBytes + pieces * sizeof(Piece) + kModelBytes;
}

}  // namespace whittle::deflate
