// How an encoder looks for matches: what a stream is foretold by, and told by its decisions' first bits.
#pragma once

#include <cstdint>

namespace whittle::deflate {

/** What places are found by. */
enum class Hashing : uint8_t {
  /** zlib's hash of three bytes, of `hash_bits`: others that have the same count as places looked at. */
  kZlib = 0,
  /** Three bytes, and four; hardly ever the same for others. */
  kThree = 1,
  kFour = 2,
};

/** How the choices of an encoder go. */
struct Manner {
  /** How many places are looked at, and how long a match ends the look. */
  uint16_t depth;
  uint16_t nice;
  /** Behind a match that long only a quarter as many are looked at. */
  uint16_t good;
  /** A match shorter than this waits whether the next place has a longer one; 0: none does. */
  uint16_t lazy;
  /** Places within a copy are not found again when it is longer. */
  uint16_t inserted;
  /** A match of three bytes is not taken from farther away. */
  uint16_t too_far;
  /** Whether it weighs several ways to go on, so that all of what is near a place is asked for. */
  bool weighs;
};

/** By number. The first nine are zlib's levels. */
constexpr Manner kManners[] = {
    {4, 8, 4, 0, 4, 32768, false},          {8, 16, 4, 0, 5, 32768, false},       {32, 32, 4, 0, 6, 32768, false},        {16, 16, 4, 4, 258, 4096, false},
    {32, 32, 8, 16, 258, 4096, false},      {128, 128, 8, 16, 258, 4096, false},  {256, 128, 8, 32, 258, 4096, false},    {1024, 258, 32, 128, 258, 4096, false},
    {4096, 258, 32, 258, 258, 4096, false}, {1, 258, 258, 0, 258, 32768, false},  {2, 258, 258, 0, 258, 32768, false},    {8, 258, 258, 0, 258, 32768, false},
    {24, 258, 258, 0, 258, 32768, false},   {16, 258, 258, 258, 258, 8192, true}, {64, 258, 258, 258, 258, 8192, true},   {256, 258, 258, 258, 258, 32768, true},
};
constexpr int kMannerCount = sizeof(kManners) / sizeof(kManners[0]);
static_assert(kMannerCount == 16);

struct Habits {
  uint8_t manner = 5;
  Hashing hashing = Hashing::kZlib;
  /** 8 to 16. */
  uint8_t hash_bits = 15;
  /** Matches of fewer bytes are not taken: 3 or, of zlib's filtered strategy, 6. */
  bool is_filtered = false;
  /** The first byte of the text is not matched with, which is zlib's way to mark an end. */
  bool skips_first = true;
  /** Log2 of the farthest distance, 8 to 15, and whether it is less by the 262 bytes that zlib keeps ready. */
  uint8_t window_bits = 15;
  bool keeps_ready = true;

  uint32_t Farthest() const { return (1u << window_bits) - (keeps_ready ? kKeptReady : 0); }
  static constexpr uint32_t kKeptReady = 262;
};

}  // namespace whittle::deflate
