// Matching of whole files within a bound of memory.
#pragma once

#include <cstdint>
#include <vector>

#include "common/content.h"
#include "match/aligner.h"

namespace whittle {

/** Less memory than this is not worked with; a smaller limit means this one. */
constexpr uint64_t kMinMatchMemoryBytes = uint64_t{16} << 20;

/**
 * Copies that cover `target` out of the concatenation of `sources`, ascending, without overlap. Sources whose index
 * does not fit in the limit are matched slice by slice against the stretches of them that resemble the slice most.
 * Executables are matched up to `label_passes` times more, each time with their references replaced by what they lead to under
 * the copies found before (see ToLabels): where code moved, more of it is alike then.
 * The copies do not depend on `threads`. Throws CodedError when reading fails.
 */
std::vector<MatchOp> MatchContent(const std::vector<Content>& sources, const Content& target, uint64_t memory_limit_bytes, int threads, int label_passes = 0);

}  // namespace whittle
