// What the sources of a file say about indexes, when they are a WebAssembly module: where its functions' instructions
// are, and which numbers in them name what. Reads only what it checks; a broken module gives fewer functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace whittle::codec {

class OldContent;
struct ElfImage;

/** What numbers of a module count: each kind moves by itself from one version to the next. */
enum class WasmSpace : uint8_t { kFunctions, kTypes, kGlobals, kAddresses, kNone };
constexpr size_t kWasmSpaces = 4;

/** From `start` on (up to the next run) numbers of a space are higher by `shift` in the new module. */
struct IndexRun {
  uint32_t start = 0;
  int32_t shift = 0;
};

/** Runs of each space, ascending. */
using IndexRuns = std::array<std::vector<IndexRun>, kWasmSpaces>;
/** Runs of a space, at most. */
constexpr size_t kMaxIndexRuns = size_t{1} << 15;

/** How a number is written. */
enum class WasmForm : uint8_t { kUnsigned, kSigned, kWord };

/** A number of a module that names something: `bytes` of them, `at` bytes from where it was looked for. */
struct WasmField {
  WasmSpace space = WasmSpace::kNone;
  WasmForm form = WasmForm::kUnsigned;
  uint8_t bytes = 0;
  int64_t at = 0;
  uint64_t value = 0;
};

/** Reads a number as a field says it is written; false when it has not just as many bytes. */
bool ReadWasmNumber(const uint8_t* bytes, WasmForm form, size_t size, uint64_t& value);
/** Writes a number below 2^32 in `size` bytes; false, and nothing written, when it takes more. */
bool WriteWasmNumber(uint8_t* bytes, WasmForm form, size_t size, uint64_t value);

/** File offsets of a function's instructions. */
struct WasmBody {
  uint32_t start = 0, end = 0;
};

struct WasmImage {
  /** Bytes of code of which it is known where the first instruction begins. */
  static constexpr uint64_t kStepBytes = 256;
  static constexpr uint8_t kUnknown = 255;
  /** What comes after so many steps, or so many functions, is not looked at. */
  static constexpr size_t kMaxSteps = size_t{1} << 18, kMaxBodies = size_t{1} << 17;

  bool found = false;
  std::vector<WasmBody> bodies;  // ascending
  uint64_t code = 0;             // where `steps` begin, 0 without any
  std::vector<uint8_t> steps;    // for each kStepBytes from `code` on: how far the first instruction that begins there is
};

/** The header by which modules are known. */
constexpr size_t kWasmHeaderBytes = 8;
bool IsWasm(const uint8_t* header);

/** Parses a module; fills in `image.wasm` and `image.regions`. */
void ParseWasm(OldContent& content, ElfImage& image);

/** The length of the instruction that begins at `bytes`, of which there are `size`, and the number in it if there is one (`at` from there on); 0 when it is unknown or longer. */
size_t StepWasm(const uint8_t* bytes, size_t size, WasmField& field);

}  // namespace whittle::codec
