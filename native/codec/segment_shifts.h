// How the segments of a new executable lie beside those of an old one. Encoder only.
#pragma once

#include <algorithm>
#include <vector>

#include "codec/references.h"

namespace whittle::codec {

/** Where the new file's segments and tables are, beside the old ones. */
inline Shifts FindShifts(const ElfImage& old, const ElfImage& target) {
  Shifts shifts;
  shifts.segments.resize(old.segments.size());
  for (size_t index = 0; index < std::min(old.segments.size(), target.segments.size()); index++) {
    const Segment& from = old.segments[index];
    const Segment& to = target.segments[index];
    SegmentShift& shift = shifts.segments[index];
    shift.bias = static_cast<int64_t>(to.address - to.offset - (from.address - from.offset));
    if (from.memory_size > from.file_size) shift.tail = static_cast<int64_t>(to.address + to.file_size - (from.address + from.file_size));
  }
  if (old.go.found && target.go.found) {
    for (size_t index = 0; index < kGoBases; index++) shifts.go[index] = static_cast<int64_t>(target.go.bases[index] - old.go.bases[index]);
  }
  return shifts;
}

/** Whether the stream can tell them; those of a broken file may be anything. */
inline bool AreSmall(const Shifts& shifts) {
  constexpr int64_t kLimit = int64_t{1} << 50;
  const auto is_small = [](int64_t shift) { return shift < kLimit && shift > -kLimit; };
  return std::all_of(shifts.segments.begin(), shifts.segments.end(), [&](const SegmentShift& shift) { return is_small(shift.bias) && is_small(shift.tail); }) &&
         std::all_of(shifts.go.begin(), shifts.go.end(), is_small);
}

}  // namespace whittle::codec
