#include "deflate/decode_stream.h"

#include "deflate/stream_walker.h"
#include "streams/rebuild.h"

namespace whittle::deflate {

namespace {

/** Four kinds of mixed bits, and less than as much again of all else. */
constexpr size_t kModelBytes = size_t{1} << 20;

}  // namespace

void RebuildStream(const uint8_t* text, size_t text_size, const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size) {
  streams::Rebuild<StreamWalker<streams::WritingPort>>("deflate", text, text_size, decisions, decisions_size, stream, size);
}

size_t RebuildMemoryBytes(size_t text_size) {
  // A block's pieces, of three bytes of text at least: a vector that grows has half as many beside it, and may have room for as many again.
  const size_t pieces = std::min(3 * (text_size / kShortestCopy + 2), kMostPieces + kMostPieces / 2);
  return Chains::kMemoryBytes + pieces * sizeof(Piece) + kModelBytes;
}

}  // namespace whittle::deflate
