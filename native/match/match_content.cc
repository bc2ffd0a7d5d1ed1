#include "match/match_content.h"

#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>

#include "match/in_parallel.h"
#include "match/label_space.h"
#include "match/region_finder.h"

namespace whittle {

namespace {

/** Shorter seeds find more in little text; in much of it they find what is there by chance. */
size_t SeedLength(uint64_t source_size) { return source_size > (uint64_t{1} << 20) ? 8 : 6; }

HugeArray<uint8_t> ReadRange(ContentReader& reader, uint64_t from, uint64_t to) {
  HugeArray<uint8_t> bytes(static_cast<size_t>(to - from));
  if (to > from) reader.Read(from, bytes.size(), bytes.data());
  return bytes;
}

/** Appends `op`, joined with the one before where it continues it. */
void Append(std::vector<MatchOp>& ops, const MatchOp& op) {
  if (!ops.empty()) {
    MatchOp& last = ops.back();
    if (last.new_position + last.length == op.new_position && last.old_position + last.length == op.old_position) {
      last.length += op.length;
      return;
    }
  }
  ops.push_back(op);
}

/** Appends the parts of `op` (against the concatenation of `regions`) as positions in the source. */
void AppendMapped(std::vector<MatchOp>& ops, const std::vector<Region>& regions, uint64_t new_base, MatchOp op) {
  uint64_t region_start = 0;
  for (const Region& region : regions) {
    const uint64_t region_end = region_start + region.length;
    if (op.length > 0 && op.old_position < region_end) {
      const uint64_t length = std::min(op.length, region_end - op.old_position);
      Append(ops, {new_base + op.new_position, region.start + (op.old_position - region_start), length});
      op.new_position += length;
      op.old_position += length;
      op.length -= length;
    }
    region_start = region_end;
  }
}

/** A large target is aligned in stretches, by several threads: what a stretch's first bytes may cost more is nothing beside it. */
constexpr size_t kStretchBytes = size_t{4} << 20;

/** Copies for one stretch of `fresh` after the other; the same for any number of threads. */
std::vector<MatchOp> MatchInMemory(const HugeArray<uint8_t>& old, const HugeArray<uint8_t>& fresh, int64_t first_diagonal, const AlignmentCosts& costs, int threads) {
  OldText text(old.data(), old.size(), SeedLength(old.size()), threads);
  const size_t count = std::max<size_t>(1, fresh.size() / kStretchBytes);
  std::vector<std::vector<MatchOp>> stretches(count);
  std::atomic<size_t> next{0};
  const auto start_of = [&](size_t stretch) { return stretch == count ? fresh.size() : stretch * kStretchBytes; };
  const auto work = [&] {
    for (size_t stretch = next++; stretch < count; stretch = next++) {
      const size_t from = start_of(stretch);
      stretches[stretch] = Align(text, fresh.data() + from, start_of(stretch + 1) - from, first_diagonal + static_cast<int64_t>(from), costs);
    }
  };
  InParallel(static_cast<int>(std::min<size_t>(count, static_cast<size_t>(threads))), work);
  std::vector<MatchOp> ops;
  for (size_t stretch = 0; stretch < count; stretch++) {
    for (MatchOp op : stretches[stretch]) {
      op.new_position += start_of(stretch);
      Append(ops, op);
    }
  }
  return ops;
}

/** How a limit is shared out among the parts of matching by slices. */
struct SlicePlan {
  uint64_t regions_bytes;
  uint64_t slice_bytes;
  uint64_t table_bytes;
};

SlicePlan PlanSlices(uint64_t limit) {
  SlicePlan plan{};
  plan.table_bytes = limit / 8;
  plan.slice_bytes = std::min<uint64_t>(limit / 24, uint64_t{256} << 20);
  plan.regions_bytes = 3 * plan.slice_bytes;
  while (plan.regions_bytes > (1u << 20) && plan.regions_bytes + SeedIndex::MemoryBytes(plan.regions_bytes) + 2 * plan.slice_bytes > limit - limit / 16 - plan.table_bytes) {
    plan.regions_bytes -= plan.regions_bytes / 8;
  }
  return plan;
}

std::vector<MatchOp> MatchSlices(ContentReader& source, ContentReader& target, uint64_t limit, int threads) {
  const SlicePlan plan = PlanSlices(limit);
  RegionFinder finder(source, plan.table_bytes);
  std::vector<MatchOp> ops;
  uint64_t expected = 0;
  for (uint64_t from = 0; from < target.size(); from += plan.slice_bytes) {
    const uint64_t to = std::min(target.size(), from + plan.slice_bytes);
    const std::vector<Region> regions = finder.Find(target, from, to, expected, plan.regions_bytes);
    const HugeArray<uint8_t> fresh = ReadRange(target, from, to);
    uint64_t total = 0;
    for (const Region& region : regions) total += region.length;
    HugeArray<uint8_t> old(static_cast<size_t>(total));
    uint64_t filled = 0;
    int64_t first_diagonal = 0;
    for (const Region& region : regions) {
      source.Read(region.start, static_cast<size_t>(region.length), old.data() + filled);
      if (expected >= region.start && expected < region.start + region.length) first_diagonal = static_cast<int64_t>(filled + (expected - region.start));
      filled += region.length;
    }
    for (const MatchOp& op : MatchInMemory(old, fresh, first_diagonal, CostsFor(fresh.data(), fresh.size()), threads)) AppendMapped(ops, regions, from, op);
    expected = ops.empty() ? to : std::min(source.size(), ops.back().old_position + (to - ops.back().new_position));
  }
  return ops;
}

/**
 * Gives back what the allocator keeps of freed memory when much is about to be taken, which will not come out of it: up to
 * 30 MiB between what the runtime's threads hold, just where a computation takes most.
 */
void ReturnFreeMemory([[maybe_unused]] uint64_t wanted_bytes) {
#if defined(__GLIBC__)
  if (wanted_bytes >= kStretchBytes) malloc_trim(0);
#endif
}

bool SameOps(const std::vector<MatchOp>& a, const std::vector<MatchOp>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const MatchOp& left, const MatchOp& right) {
    return left.new_position == right.new_position && left.old_position == right.old_position && left.length == right.length;
  });
}

}  // namespace

std::vector<MatchOp> MatchContent(const std::vector<Content>& sources, const Content& target, uint64_t memory_limit_bytes, int threads, int label_passes) {
  ContentReader source_reader(sources);
  ContentReader target_reader({target});
  const uint64_t source_size = source_reader.size();
  const uint64_t target_size = target_reader.size();
  if (source_size == 0 || target_size == 0) return {};
  const uint64_t limit = std::max(memory_limit_bytes, kMinMatchMemoryBytes);
  const bool fits = source_size <= kMaxIndexedText && source_size <= limit && target_size <= limit &&
                    source_size + target_size + SeedIndex::MemoryBytes(source_size) <= limit;
  ReturnFreeMemory(source_size + target_size);
  if (!fits) return MatchSlices(source_reader, target_reader, limit, threads);
  HugeArray<uint8_t> old = ReadRange(source_reader, 0, source_size);
  HugeArray<uint8_t> fresh = ReadRange(target_reader, 0, target_size);
  const AlignmentCosts costs = CostsFor(fresh.data(), fresh.size());
  std::vector<MatchOp> ops = MatchInMemory(old, fresh, 0, costs, threads);
  for (int pass = 0; pass < label_passes; pass++) {
    if (!ToLabels(sources, target, ops, old, fresh)) break;
    std::vector<MatchOp> labelled = MatchInMemory(old, fresh, 0, costs, threads);
    const bool settled = SameOps(ops, labelled);
    ops = std::move(labelled);
    if (settled || pass + 1 == label_passes) break;
    source_reader.Read(0, old.size(), old.data());
    target_reader.Read(0, fresh.size(), fresh.data());
  }
  return ops;
}

}  // namespace whittle
