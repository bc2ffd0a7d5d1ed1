// Finds the numbers of a stretch of an old module that name something.
#pragma once

#include <algorithm>

#include "codec/elf_image.h"
#include "codec/number.h"

namespace whittle::codec {

/** Gives the numbers of a list to `visit`. Where it does not begin in [from, to), the first is what follows the end of another. */
template <class Visit>
void VisitWasmList(const uint8_t* bytes, int64_t from, int64_t to, bool begins, WasmSpace space, const Visit& visit) {
  int64_t start = from;
  while (!begins && start < to && bytes[start++] >= 128) {}
  for (int64_t at = start; at < to; at++) {
    if (bytes[at] >= 128) continue;
    WasmField field{space, WasmForm::kUnsigned, 0, start, 0};
    const size_t size = static_cast<size_t>(at + 1 - start);
    if (size <= 5 && ReadWasmNumber(bytes + start, field.form, size, field.value)) {
      field.bytes = static_cast<uint8_t>(size);
      visit(field);
    }
    start = at + 1;
  }
}

/** So with words of a data segment, whose first byte is at an address of `base`. */
template <class Visit>
void VisitWasmData(const uint8_t* bytes, int64_t from, int64_t to, uint64_t address, const Visit& visit) {
  constexpr uint32_t kLeast = 256, kEnd = 1u << 31;
  for (int64_t at = from + static_cast<int64_t>((0 - address) & 3); at + 4 <= to; at += 4) {
    const uint32_t value = Load(bytes + at);
    if (value >= kLeast && value < kEnd) visit(WasmField{WasmSpace::kAddresses, WasmForm::kWord, 4, at, value});
  }
}

/** And with instructions. `old_offset`: that of index 0. */
template <class Visit>
void VisitWasmCode(const WasmImage& wasm, const uint8_t* bytes, int64_t from, int64_t to, uint64_t old_offset, const Visit& visit) {
  const uint64_t first = old_offset + static_cast<uint64_t>(from);
  auto body = std::upper_bound(wasm.bodies.begin(), wasm.bodies.end(), first, [](uint64_t offset, const WasmBody& other) { return offset < other.end; });
  for (; body != wasm.bodies.end() && static_cast<int64_t>(body->start - old_offset) < to; ++body) {
    const int64_t end = std::min(to, static_cast<int64_t>(body->end - old_offset));
    int64_t at = static_cast<int64_t>(body->start - old_offset);
    if (at < from) {
      // The first instruction that is known to begin within.
      size_t step = static_cast<size_t>((first - wasm.code + WasmImage::kStepBytes - 1) / WasmImage::kStepBytes);
      const size_t last = std::min(wasm.steps.size(), static_cast<size_t>((old_offset + static_cast<uint64_t>(to) - wasm.code) / WasmImage::kStepBytes + 1));
      while (step < last && wasm.steps[step] == WasmImage::kUnknown) step++;
      if (step >= last) continue;
      at = static_cast<int64_t>(wasm.code + step * WasmImage::kStepBytes + wasm.steps[step] - old_offset);
    }
    WasmField field;
    while (at < end) {
      const size_t length = StepWasm(bytes + at, static_cast<size_t>(end - at), field);
      if (length == 0) break;
      if (field.space != WasmSpace::kNone) {
        field.at += at;
        visit(field);
      }
      at += static_cast<int64_t>(length);
    }
  }
}

/** And with those of a region, whatever it holds, in [from, to). */
template <class Visit>
void VisitWasmRegion(const ElfImage& image, const Region& region, const uint8_t* bytes, int64_t from, int64_t to, uint64_t old_offset, const Visit& visit) {
  const uint64_t skipped = old_offset + static_cast<uint64_t>(from) - region.start;
  switch (region.kind) {
    case ReferenceKind::kWasmCode: return VisitWasmCode(image.wasm, bytes, from, to, old_offset, visit);
    case ReferenceKind::kWasmTypes: return VisitWasmList(bytes, from, to, skipped == 0, WasmSpace::kTypes, visit);
    case ReferenceKind::kWasmFunctions: return VisitWasmList(bytes, from, to, skipped == 0, WasmSpace::kFunctions, visit);
    case ReferenceKind::kWasmData: return VisitWasmData(bytes, from, to, region.base + skipped, visit);
    default: return;
  }
}

}  // namespace whittle::codec
