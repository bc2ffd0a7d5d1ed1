#include "brotli/decode_stream.h"

#include "brotli/stream_walker.h"
#include "common/content.h"
#include "streams/writing_port.h"

namespace whittle::brotli {

void RebuildStream(const uint8_t* text, size_t text_size, const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size) {
  try {
    streams::WritingPort port(decisions, decisions_size, stream, size);
    StreamWalker<streams::WritingPort>(port, text, text_size).Walk();
    if (!port.IsDone()) throw StreamError("a stream comes out too short");
  } catch (const StreamError& error) {
    throw CodedError("DELTA_CORRUPT", std::string("a brotli stream cannot be made again: ") + error.what());
  }
}

size_t RebuildMemoryBytes(size_t text_size) {
  // Models, and the codes of a metablock: at most 256 of each category, of three bytes or five a symbol.
  return Matches::MemoryBytes(text_size) + (size_t{3} << 20);
}

}  // namespace whittle::brotli
