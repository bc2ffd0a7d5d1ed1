// Executables as they look when every reference is replaced by what it leads to.
#pragma once

#include <cstdint>
#include <vector>

#include "common/content.h"
#include "match/aligner.h"
#include "match/huge_array.h"

namespace whittle {

/**
 * Replaces the references in `old`, the bytes of `sources`, and in `fresh`, those of `target`, by labels: old ones by the new
 * address that `ops` map their target to, new ones by their target. Bytes along a copy are then equal where the decoder's
 * rewriting of references would make them so. False when nothing of the kind pays: the bytes are left in any state then.
 */
bool ToLabels(const std::vector<Content>& sources, const Content& target, const std::vector<MatchOp>& ops, HugeArray<uint8_t>& old, HugeArray<uint8_t>& fresh);

}  // namespace whittle
