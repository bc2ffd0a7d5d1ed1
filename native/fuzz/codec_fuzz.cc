// Fuzzing of the codec with sanitizers. The input's first bytes choose profile, sizes and sources; the rest is the
// segment. Built with -fsanitize=fuzzer it is a libFuzzer target; with -DWHITTLE_FUZZ_MAIN a program that mutates
// segments which the encoder makes of the files given, old and new by turns (`npm run fuzz` builds it so and runs it):
//   WHITTLE_SEED=1 codec_fuzz ROUNDS OLD NEW [OLD NEW ...]
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "codec/decode.h"
#ifdef WHITTLE_FUZZ_MAIN
#include "codec/encode.h"
#include "fuzz/mutate.h"
#endif

namespace {

using whittle::CodedError;
using whittle::Content;
using whittle::codec::Decoder;
using whittle::codec::MakeDecoder;
using whittle::codec::ProfileName;

/** Bytes in an anonymous file. */
Content MakeContent(const uint8_t* bytes, size_t size) {
  Content content;
  content.fd = memfd_create("content", 0);
  if (content.fd < 0 || write(content.fd, bytes, size) != static_cast<ssize_t>(size)) abort();
  if (size > 0) content.extents.push_back({0, size});
  content.size = size;
  return content;
}

/** Decodes one file of one segment; true when it came through without an error. */
bool Decode(ProfileName profile, const Content& source, uint64_t size, const uint8_t* segment, size_t segment_size) {
  const auto decoder = MakeDecoder(profile);
  uint8_t out[10000];
  uint64_t total = 0;
  try {
    decoder->Segment(segment, segment_size);
    decoder->Begin({source}, size);
    while (const size_t count = decoder->Next(out, sizeof out)) total += count;
    decoder->End();
  } catch (const CodedError& error) {
    if (error.code != "DELTA_CORRUPT") abort();
    return false;
  }
  if (total != size) abort();
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 6) return 0;
  const ProfileName profile = data[0] & 1 ? ProfileName::kFast : ProfileName::kSmall;
  const uint64_t target_size = static_cast<uint64_t>(data[1] | data[2] << 8 | (data[0] >> 1) << 16) & 0x3ffff;
  const size_t old_size = static_cast<size_t>(data[3] | data[4] << 8) % (size - 4);
  const Content source = MakeContent(data + 5, old_size < size - 5 ? old_size : size - 5);
  Decode(profile, source, target_size, data + 5 + source.size, size - 5 - source.size);
  close(source.fd);
  return 0;
}

#ifdef WHITTLE_FUZZ_MAIN
namespace {

using whittle::fuzz::Mutate;
using whittle::fuzz::Random;

std::vector<uint8_t> ReadFile(const char* path, size_t limit) {
  std::vector<uint8_t> bytes(limit);
  const int fd = open(path, O_RDONLY);
  const ssize_t count = fd < 0 ? -1 : read(fd, bytes.data(), limit);
  if (count < 0) abort();
  close(fd);
  bytes.resize(static_cast<size_t>(count));
  return bytes;
}

/** Ops as a careless matcher would make them: in valid ranges, but anywhere. */
std::vector<whittle::codec::Op> RandomOps(uint64_t old_size, uint64_t new_size, Random& random) {
  std::vector<whittle::codec::Op> ops;
  uint64_t position = 0;
  while (position < new_size && old_size > 0) {
    position += random.Next(3) == 0 ? random.Next(300) : 0;
    if (position >= new_size) break;
    const uint64_t old_position = random.Next(2) == 0 ? std::min(position, old_size - 1) : random.Next(static_cast<uint32_t>(old_size));
    const uint64_t length = std::min({uint64_t{1} + random.Next(5000), new_size - position, old_size - old_position});
    ops.push_back({position, old_position, length});
    position += length;
  }
  return ops;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return 2;
  const int rounds = atoi(arguments[1]);
  Random random = Random::FromEnvironment();
  long sound = 0;
  for (int round = 0; round < rounds; round++) {
    const int pair = 2 + 2 * static_cast<int>(random.Next(static_cast<uint32_t>((count - 2) / 2)));
    std::vector<uint8_t> old_bytes = ReadFile(arguments[pair], 20000 + random.Next(60000));
    const std::vector<uint8_t> new_bytes = ReadFile(arguments[pair + 1], 20000 + random.Next(60000));
    if (random.Next(2) == 0 && old_bytes.size() > 300) {
      // Its header, or what stands anywhere: of a module headers are everywhere.
      const auto begin = old_bytes.begin() + static_cast<ptrdiff_t>(random.Next(2) == 0 ? 0 : random.Next(static_cast<uint32_t>(old_bytes.size() - 300)));
      std::vector<uint8_t> piece(begin, begin + 300);
      Mutate(piece, random);
      std::copy(piece.begin(), piece.begin() + static_cast<ptrdiff_t>(std::min<size_t>(piece.size(), 300)), begin);
    }
    whittle::codec::EncodeFile file;
    const ProfileName profile = random.Next(2) ? ProfileName::kFast : ProfileName::kSmall;
    file.sources = {MakeContent(old_bytes.data(), old_bytes.size())};
    file.target = MakeContent(new_bytes.data(), new_bytes.size());
    file.ops = RandomOps(old_bytes.size(), new_bytes.size(), random);
    whittle::codec::EncodeStats stats;
    std::vector<uint8_t> segment = whittle::codec::MakeEncoder(profile)->Segment({file}, 2, stats);
    if (!Decode(profile, file.sources[0], file.target.size, segment.data(), segment.size())) abort();
    for (int mutation = 0; mutation < 3; mutation++) {
      std::vector<uint8_t> mutated = segment;
      Mutate(mutated, random);
      const uint64_t size = random.Next(4) == 0 ? random.Next(200000) : file.target.size;
      sound += Decode(profile, file.sources[0], size, mutated.data(), mutated.size());
    }
    close(file.sources[0].fd);
    close(file.target.fd);
  }
  std::printf("%d round trips, %d mutants, %ld of them without an error\n", rounds, rounds * 3, sound);
  return 0;
}
#endif
