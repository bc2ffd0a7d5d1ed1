// Numbers of WebAssembly modules that name functions, types, globals, and places in memory.
#include "codec/references.h"
#include "codec/wasm_fields.h"

namespace whittle::codec {

uint64_t AddressMap::MapIndex(WasmSpace space, uint64_t value) const {
  const std::vector<IndexRun>& runs = shifts_.indexes[static_cast<size_t>(space)];
  const auto after = std::upper_bound(runs.begin(), runs.end(), value, [](uint64_t wanted, const IndexRun& run) { return wanted < run.start; });
  return after == runs.begin() ? value : (value + static_cast<uint64_t>(int64_t{after[-1].shift})) & 0xffffffff;
}

/** What the map says of numbers is written at once: what is learned of one says little of others beside what the runs tell. */
void ReferenceRewriter::Wasm(const Part& part, const Region& region, uint64_t old_offset) {
  static constexpr Mark kMarksOfSpaces[kWasmSpaces] = {kBranch, kOffset, kPage, kData};
  VisitWasmRegion(map_.image(), region, bytes_, part.from, part.to, old_offset, [&](const WasmField& field) {
    if (field.at + field.bytes <= 0 || field.at >= size_) return;
    MarkField(field.at, field.form == WasmForm::kWord ? kPointer : kMarksOfSpaces[static_cast<size_t>(field.space)], std::min<int64_t>(field.bytes, 4));
    // What takes more bytes now stays as it was.
    WriteWasmNumber(bytes_ + field.at, field.form, field.bytes, map_.MapIndex(field.space, field.value));
  });
}

}  // namespace whittle::codec
