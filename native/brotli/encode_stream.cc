#include "brotli/encode_stream.h"

#include "brotli/stream_walker.h"
#include "streams/reading_port.h"

namespace whittle::brotli {

std::vector<uint8_t> FindDecisions(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size) {
  try {
    streams::ReadingPort port(stream, size);
    StreamWalker<streams::ReadingPort>(port, text, text_size).Walk();
    if (port.AtEnd()) return port.coder().Finish();
  } catch (const StreamError&) {
    // Another text, or no stream at all.
  }
  return {};
}

}  // namespace whittle::brotli
