// Fuzzing of what takes compressed streams apart and makes them again, with sanitizers. The files are streams and what they
// hold, by turns. Each is taken apart and made again; so are mutants of it, which need not be streams; and the decisions, spoilt
// or of another text, must give the stream that they are, an error, or another of the same size. native/fuzz/run.mjs builds it
// for each format:
//   ./brotli_fuzz 10000 stream text [stream text ...]
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "common/content.h"
#include "fuzz/mutate.h"

namespace whittle::fuzz {

using ByteVector = std::vector<uint8_t>;

inline ByteVector ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) abort();
  return ByteVector(std::istreambuf_iterator<char>(file), {});
}

/** A Format has: `Find` and `Rebuild`, as native/brotli has FindDecisions and RebuildStream. True when the decisions gave a stream, which is then in `stream`. */
template <class Format>
bool Rebuild(const ByteVector& text, const ByteVector& decisions, ByteVector& stream) {
  try {
    Format::Rebuild(text.data(), text.size(), decisions.data(), decisions.size(), stream.data(), stream.size());
    return true;
  } catch (const CodedError& error) {
    if (error.code != "DELTA_CORRUPT") abort();
    return false;
  }
}

/** Takes a stream apart; ends the program unless it comes back. False when it is none of this text. */
template <class Format>
bool RoundTrip(const ByteVector& stream, const ByteVector& text, ByteVector& decisions) {
  decisions = Format::Find(stream.data(), stream.size(), text.data(), text.size());
  if (decisions.empty()) return false;
  ByteVector again(stream.size());
  if (!Rebuild<Format>(text, decisions, again) || again != stream) abort();
  return true;
}

/** Rounds over pairs of files, as a program's arguments say. */
template <class Format>
int FuzzStreams(int count, char** arguments) {
  if (count < 4) return 2;
  const int rounds = atoi(arguments[1]);
  Random random = Random::FromEnvironment();
  long mutants = 0, streams = 0;
  for (int round = 0; round < rounds; round++) {
    const int pair = 2 + 2 * static_cast<int>(random.Next(static_cast<uint32_t>((count - 2) / 2)));
    const ByteVector stream = ReadFile(arguments[pair]);
    ByteVector text = ReadFile(arguments[pair + 1]), decisions, unused;
    if (!RoundTrip<Format>(stream, text, decisions)) abort();
    for (int mutation = 0; mutation < 3; mutation++) {
      ByteVector mutant = stream;
      Mutate(mutant, random);
      mutants += RoundTrip<Format>(mutant, text, unused);
      mutant = decisions;
      Mutate(mutant, random);
      if (random.Next(4) == 0) Mutate(text, random);
      ByteVector out(random.Next(4) == 0 ? random.Next(100000) : stream.size());
      streams += Rebuild<Format>(text, mutant, out);
    }
  }
  std::printf("%d round trips, %d mutants: %ld are streams, %ld give one\n", rounds, rounds * 6, mutants, streams);
  return 0;
}

}  // namespace whittle::fuzz
