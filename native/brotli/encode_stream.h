// Tells the decisions of a brotli stream's encoder, of which and of its text the stream can be made again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace whittle::brotli {

/** The decisions; empty when the stream is none of this text, or of a kind that is not taken apart (a large window). */
std::vector<uint8_t> FindDecisions(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size);

}  // namespace whittle::brotli
