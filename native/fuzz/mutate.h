// Random numbers that are the same everywhere, and how fuzzers spoil bytes with them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace whittle::fuzz {

struct Random {
  uint64_t state;

  /** What WHITTLE_SEED says; without it always the same. */
  static Random FromEnvironment() {
    const char* seed = std::getenv("WHITTLE_SEED");
    return {seed == nullptr ? 12345 : 12344 + std::strtoull(seed, nullptr, 10)};
  }

  uint32_t Next(uint32_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>((state >> 33) % limit);
  }
};

/** Spoils a few places. */
inline void Mutate(std::vector<uint8_t>& bytes, Random& random) {
  for (uint32_t count = 1 + random.Next(4); count > 0 && !bytes.empty(); count--) {
    const size_t at = random.Next(static_cast<uint32_t>(bytes.size()));
    switch (random.Next(6)) {
      case 0: bytes[at] = static_cast<uint8_t>(random.Next(256)); break;
      case 1: bytes[at] ^= static_cast<uint8_t>(1u << random.Next(8)); break;
      case 2: bytes.resize(at); break;
      case 3: bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(random.Next(256))); break;
      case 4: bytes[at] = 0xff; break;
      default: std::memset(&bytes[at], 0, std::min<size_t>(bytes.size() - at, 1 + random.Next(16)));
    }
  }
}

}  // namespace whittle::fuzz
