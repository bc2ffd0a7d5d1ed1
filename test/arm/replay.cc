// Replays recorded calls of a decoder: `replay CALLS CONTENT` writes every file that they decode to stdout, one after the other.
// trace.mjs says how both files are made. Ends with 1 and a word on stderr when a call ends otherwise than on record.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "codec/decode.h"

// It is compiled with the flags of the addon.
static_assert(sizeof(time_t) == 8 && sizeof(off_t) == 8, "native/binding.gyp has to ask for times and sizes of 64 bits on every machine");

namespace {

using whittle::CodedError;
using whittle::Content;
using whittle::codec::Decoder;
using whittle::codec::MakeDecoder;
using whittle::codec::ProfileName;

/** What the device asks of a decoder at a time. */
constexpr size_t kOutBytes = 256 * 1024;

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "replay: %s\n", what.c_str());
  std::exit(1);
}

/** Little-endian fields of the recording, which is our own. */
class Calls {
 public:
  explicit Calls(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}
  bool AtEnd() const { return at_ == bytes_.size(); }
  const uint8_t* Bytes(size_t count) {
    if (count > bytes_.size() - at_) Fail("the recording ends within a call");
    at_ += count;
    return bytes_.data() + at_ - count;
  }
  uint64_t Number(size_t width) {
    const uint8_t* bytes = Bytes(width);
    uint64_t value = 0;
    for (size_t index = width; index > 0; index--) value = value << 8 | bytes[index - 1];
    return value;
  }

 private:
  std::vector<uint8_t> bytes_;
  size_t at_ = 0;
};

std::vector<uint8_t> ReadAll(int fd) {
  std::vector<uint8_t> bytes;
  uint8_t piece[65536];
  for (ssize_t count; (count = read(fd, piece, sizeof piece)) != 0;) {
    if (count < 0) Fail("cannot read the recording");
    bytes.insert(bytes.end(), piece, piece + count);
  }
  return bytes;
}

void WriteAll(const uint8_t* bytes, size_t size) {
  while (size > 0) {
    const ssize_t count = write(STDOUT_FILENO, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) Fail("cannot write");
    bytes += count;
    size -= static_cast<size_t>(count);
  }
}

ProfileName ReadProfile(Calls& calls) { return calls.Number(1) == 1 ? ProfileName::kFast : ProfileName::kSmall; }

std::vector<Content> ReadSources(Calls& calls, int content_fd) {
  std::vector<Content> sources(static_cast<size_t>(calls.Number(4)));
  for (Content& source : sources) {
    source.fd = content_fd;
    source.extents.resize(static_cast<size_t>(calls.Number(4)));
    for (whittle::Extent& extent : source.extents) {
      extent.offset = calls.Number(8);
      extent.length = calls.Number(8);
      source.size += extent.length;
    }
  }
  return sources;
}

void DecodeFile(Decoder& decoder, uint64_t size, uint8_t* out) {
  uint64_t total = 0;
  while (const size_t count = decoder.Next(out, kOutBytes)) {
    WriteAll(out, count);
    total += count;
  }
  if (total != size) Fail("a file has " + std::to_string(total) + " bytes instead of " + std::to_string(size));
}

/** A segment that must be refused. */
void Refuse(ProfileName profile, const uint8_t* bytes, size_t size) {
  try {
    MakeDecoder(profile)->Segment(bytes, size);
  } catch (const CodedError& error) {
    if (error.code == "DELTA_CORRUPT") return;
    Fail("a segment that is no segment gives " + error.code);
  }
  Fail("a segment that is no segment is accepted");
}

void Replay(Calls calls, int content_fd) {
  std::unique_ptr<Decoder> decoder;
  const std::unique_ptr<uint8_t[]> out(new uint8_t[kOutBytes]);
  while (!calls.AtEnd()) {
    const char call = static_cast<char>(calls.Number(1));
    if (call == 'P') {
      decoder = MakeDecoder(ReadProfile(calls));
    } else if (call == 'R') {
      const ProfileName profile = ReadProfile(calls);
      const size_t size = static_cast<size_t>(calls.Number(4));
      Refuse(profile, calls.Bytes(size), size);
    } else if (decoder == nullptr) {
      Fail("the recording names no profile");
    } else if (call == 'S') {
      const size_t size = static_cast<size_t>(calls.Number(4));
      decoder->Segment(calls.Bytes(size), size);
    } else if (call == 'B') {
      const uint64_t size = calls.Number(8);
      decoder->Begin(ReadSources(calls, content_fd), size);
      DecodeFile(*decoder, size, out.get());
    } else if (call == 'E') {
      decoder->End();
    } else {
      Fail("the recording has an unknown call");
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) Fail("usage: replay CALLS CONTENT");
  const int calls_fd = open(arguments[1], O_RDONLY);
  const int content_fd = open(arguments[2], O_RDONLY);
  if (calls_fd < 0 || content_fd < 0) Fail("cannot open the recording");
  try {
    Replay(Calls(ReadAll(calls_fd)), content_fd);
  } catch (const CodedError& error) {
    Fail(error.code + ": " + error.what());
  }
  return 0;
}
