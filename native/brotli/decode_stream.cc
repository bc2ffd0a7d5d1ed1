#include "brotli/decode_stream.h"

#include "brotli/stream_walker.h"
#include "streams/rebuild.h"

namespace whittle::brotli {

void RebuildStream(const uint8_t* text, size_t text_size, const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size) {
  streams::Rebuild<StreamWalker<streams::WritingPort>>("brotli", text, text_size, decisions, decisions_size, stream, size);
}

size_t RebuildMemoryBytes(size_t text_size) {
  // Models, and the codes of a metablock: at most 256 of each category, of three bytes or five a symbol.
  return Matches::MemoryBytes(text_size) + (size_t{3} << 20);
}

}  // namespace whittle::brotli
