// Finds how the indexes of a module moved, from what became of them in copies.
#pragma once

#include <vector>

#include "codec/old_content.h"
#include "codec/references.h"

namespace whittle::codec {

/** The runs of every space by which most numbers in copies are as in the new module. */
IndexRuns FindIndexRuns(const ElfImage& image, OldContent& old, OldContent& target, const std::vector<SmallOp>& ops);

}  // namespace whittle::codec
