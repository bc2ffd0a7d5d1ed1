// A list of filesystem steps below one root, run in one go off the event loop.
#pragma once

#include <cstddef>
#include <cstdint>

#include "linux/wire.h"

namespace whittle {

/**
 * Runs the steps that `commands` encodes (see src/atomic/batch-codec.ts for the encoding) below directory `root`, in order.
 * Stops after the first that fails, unless that step says to go on. Puts one result per step run into `out`: i32 errno,
 * u32 size, payload. Throws ArgumentError-like std::runtime_error when the encoding is wrong; nothing after that point was run.
 */
void RunBatch(int root, bool walk_only, const uint8_t* commands, size_t size, WireWriter* out);

}  // namespace whittle
