// Fuzzing of deflate streams: see stream_fuzz.h.
#include "deflate/decode_stream.h"
#include "deflate/encode_stream.h"
#include "fuzz/stream_fuzz.h"

namespace {

struct Deflate {
  static constexpr auto Find = whittle::deflate::FindDecisions;
  static constexpr auto Rebuild = whittle::deflate::RebuildStream;
};

}  // namespace

int main(int count, char** arguments) { return whittle::fuzz::FuzzStreams<Deflate>(count, arguments); }
