// Takes a raw deflate stream apart that is at hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "deflate/block.h"

namespace whittle::deflate {

/** All of a stream, whose every copy gives what the text has. */
struct TakenStream {
  std::vector<Block> blocks;
  uint8_t last_filling = 0;
  uint32_t shortest_copy = kLongestCopy, farthest = 0;
  bool copies_first = false;
};

/** Throws StreamError when it is no stream, or one of another text. */
TakenStream TakeApart(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size);

/** The same of the blocks that begin within the first `bytes` of the text; of what comes behind them nothing is known. Throws as that does. */
TakenStream TakeSome(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size, size_t bytes);

}  // namespace whittle::deflate
