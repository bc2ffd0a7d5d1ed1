// Tells the decisions of a raw deflate stream's encoder, of which and of its text the stream can be made again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace whittle::deflate {

/** The decisions; empty when the stream is none of this text, or has more copies in a block than are told. */
std::vector<uint8_t> FindDecisions(const uint8_t* stream, size_t size, const uint8_t* text, size_t text_size);

}  // namespace whittle::deflate
