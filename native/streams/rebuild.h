// Makes a compressed stream again of its text and its encoder's decisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/content.h"
#include "streams/writing_port.h"

namespace whittle::streams {

/** Writes all of `stream`, as a Walker over a WritingPort says. Throws CodedError DELTA_CORRUPT, naming the format, when what there is does not give it. */
template <typename Walker>
void Rebuild(const char* format, const uint8_t* text, size_t text_size, const uint8_t* decisions, size_t decisions_size, uint8_t* stream, size_t size) {
  try {
    WritingPort port(decisions, decisions_size, stream, size);
    Walker(port, text, text_size).Walk();
    if (!port.IsDone()) throw StreamError("a stream comes out too short");
  } catch (const StreamError& error) {
    throw CodedError("DELTA_CORRUPT", std::string("a ") + format + " stream cannot be made again: " + error.what());
  }
}

}  // namespace whittle::streams
