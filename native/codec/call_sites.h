// Tables of call sites in the exception tables of C++ and Rust programs: where in a function calls are, and what is to be
// done when one of them throws.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/loaded_range.h"

namespace whittle::codec {

/** File offsets [start, end) of whole records, and the address of the function whose calls they tell. */
struct CallSites {
  uint32_t start = 0, end = 0, function = 0;
};

/** A number of a record: seven bits in each byte, low ones first. */
struct CallSiteNumber {
  /** A longer one is none that a linker makes of addresses below 4 GiB. */
  static constexpr size_t kMostBytes = 5;
  uint64_t value = 0;
  size_t bytes = 0;  // 0 when it does not end

  /** Reads from `bytes`, of which there are `size`. */
  static CallSiteNumber Read(const uint8_t* bytes, size_t size) {
    CallSiteNumber number;
    for (size_t index = 0; index < size && index < kMostBytes; index++) {
      number.value |= static_cast<uint64_t>(bytes[index] & 127) << (7 * index);
      if (bytes[index] < 128) {
        number.bytes = index + 1;
        break;
      }
    }
    return number;
  }
};

/** How many numbers a record has: start, length, landing pad, action. */
constexpr size_t kCallSiteNumbers = 4;

/**
 * Finds the tables in `exceptions` that the frames refer to, ascending, cut at records so that none is much longer than 128 bytes.
 * Reads both once. Offsets and addresses from 4 GiB on are not looked at.
 */
std::vector<CallSites> FindCallSites(OldContent& content, const LoadedRange& frames, const LoadedRange& exceptions);

}  // namespace whittle::codec
