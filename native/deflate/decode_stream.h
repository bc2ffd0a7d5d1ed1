// Makes a raw deflate stream again of its text and the decisions of its encoder.
#pragma once

#include <cstddef>
#include <cstdint>

namespace whittle::deflate {

/**
 * Writes the stream of `size` bytes to `stream`. Never writes more, whatever the decisions are. Throws CodedError DELTA_CORRUPT
 * when they are not those of a stream of this text and size.
 */
void RebuildStream(const uint8_t* text, size_t text_size, const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size);

/** Memory that this takes for a text of `text_size` bytes beside text, decisions and stream. */
size_t RebuildMemoryBytes(size_t text_size);

}  // namespace whittle::deflate
