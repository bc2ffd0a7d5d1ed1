// Fuzzing of brotli streams: see stream_fuzz.h.
#include "brotli/decode_stream.h"
#include "brotli/encode_stream.h"
#include "fuzz/stream_fuzz.h"

namespace {

struct Brotli {
  static constexpr auto Find = whittle::brotli::FindDecisions;
  static constexpr auto Rebuild = whittle::brotli::RebuildStream;
};

}  // namespace

int main(int count, char** arguments) { return whittle::fuzz::FuzzStreams<Brotli>(count, arguments); }
