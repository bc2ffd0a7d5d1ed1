#include "match/label_space.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "codec/encode_indexes.h"
#include "codec/references.h"
#include "codec/segment_shifts.h"

namespace whittle {

namespace {

using codec::AddressMap;
using codec::ReferenceRewriter;

/** Replaces the references in `bytes` by labels, chunk by chunk: what a chunk stands beside must be as it was. */
void Label(AddressMap& map, HugeArray<uint8_t>& bytes) {
  constexpr size_t kChunk = 32 * 1024, kLead = ReferenceRewriter::kLead, kTrail = ReferenceRewriter::kTrail;
  ReferenceRewriter rewriter(map, ReferenceRewriter::Form::kLabels);
  std::vector<uint8_t> window(kLead + kChunk + kTrail), marks(kChunk);
  std::array<uint8_t, kLead> before{};
  for (size_t position = 0; position < bytes.size(); position += kChunk) {
    const size_t size = std::min(kChunk, bytes.size() - position);
    const size_t trail = std::min(kTrail, bytes.size() - position - size);
    std::fill(window.begin(), window.end(), uint8_t{0});
    std::copy(before.begin(), before.end(), window.begin());
    std::memcpy(window.data() + kLead, bytes.data() + position, size + trail);
    if (size == kChunk) std::memcpy(before.data(), window.data() + size, kLead);
    rewriter.Rewrite(window.data() + kLead, size, position, position, marks.data());
    std::memcpy(bytes.data() + position, window.data() + kLead, size);
  }
}

/** Bytes of copies that differ. */
uint64_t Misses(const std::vector<MatchOp>& ops, const HugeArray<uint8_t>& old, const HugeArray<uint8_t>& fresh) {
  uint64_t misses = 0;
  for (const MatchOp& op : ops) {
    const uint8_t* from = old.data() + op.old_position;
    const uint8_t* to = fresh.data() + op.new_position;
    for (size_t index = 0; index < op.length; index++) misses += from[index] != to[index];
  }
  return misses;
}

}  // namespace

bool ToLabels(const std::vector<Content>& sources, const Content& target, const std::vector<MatchOp>& ops, HugeArray<uint8_t>& old, HugeArray<uint8_t>& fresh) {
  constexpr uint64_t kLimit = uint64_t{1} << 32;
  if (ops.empty() || ops.size() > AddressMap::kMaxOps || old.size() >= kLimit || fresh.size() >= kLimit) return false;
  codec::OldContent old_content(sources), new_content({target});
  codec::ElfImage old_image, new_image;
  if (!codec::ParseElf(old_content, old_image) || !codec::ParseElf(new_content, new_image)) return false;
  codec::Shifts shifts = codec::FindShifts(old_image, new_image);
  if (!codec::AreSmall(shifts) || old_image.wasm.found != new_image.wasm.found) return false;
  std::vector<codec::SmallOp> copies;
  copies.reserve(ops.size());
  for (const MatchOp& op : ops) copies.emplace_back(codec::Op{op.new_position, op.old_position, op.length});
  shifts.indexes = codec::FindIndexRuns(old_image, old_content, new_content, copies);
  const uint64_t plain = Misses(ops, old, fresh);
  AddressMap map, still;
  map.Build(old_image, shifts, copies);
  still.Build(new_image, {}, {});
  Label(map, old);
  Label(still, fresh);
  const uint64_t labelled = Misses(ops, old, fresh);
  return labelled + labelled / 50 < plain;
}

}  // namespace whittle
