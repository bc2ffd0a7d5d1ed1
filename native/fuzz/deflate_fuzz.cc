// Fuzzing of deflate streams: see stream_fuzz.h.
#include "deflate/decode_stream.h"
#include "deflate/encode_makers.h"
#include "deflate/encode_stream.h"
#include "fuzz/stream_fuzz.h"

#include <cstdlib>

namespace {

/** Decisions, and beside them who may have made the stream. */
std::vector<uint8_t> Find(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size) {
  for (const uint8_t maker : whittle::deflate::LikelyMakers(stream, size, text, text_size)) {
    if (maker % 16 == 0 || maker % 16 > 9 || maker / 16 > 2) std::abort();
  }
  return whittle::deflate::FindDecisions(stream, size, text, text_size);
}

struct Deflate {
  static constexpr auto Find = ::Find;
  static constexpr auto Rebuild = whittle::deflate::RebuildStream;
};

}  // namespace

int main(int count, char** arguments) { return whittle::fuzz::FuzzStreams<Deflate>(count, arguments); }
