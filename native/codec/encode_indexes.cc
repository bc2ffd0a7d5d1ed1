#include "codec/encode_indexes.h"

#include <algorithm>
#include <unordered_map>

#include "codec/wasm_fields.h"

namespace whittle::codec {

namespace {

/** That an old number was found in a copy with so much added. */
struct Vote {
  uint32_t value;
  int32_t shift;
};
constexpr size_t kMaxVotes = size_t{1} << 21;

/** Takes note of what became of the numbers in a piece of a copy. */
void Collect(const ElfImage& image, const uint8_t* bytes, const uint8_t* fresh, int64_t size, uint64_t old_offset, std::array<std::vector<Vote>, kWasmSpaces>& votes) {
  auto region = std::upper_bound(image.regions.begin(), image.regions.end(), old_offset, [](uint64_t offset, const Region& other) { return offset < other.end; });
  for (; region != image.regions.end() && region->start < old_offset + static_cast<uint64_t>(size); ++region) {
    const int64_t from = std::max<int64_t>(static_cast<int64_t>(region->start - old_offset), -static_cast<int64_t>(ReferenceRewriter::kLead));
    const int64_t to = std::min<int64_t>(static_cast<int64_t>(region->end - old_offset), size + static_cast<int64_t>(ReferenceRewriter::kTrail));
    VisitWasmRegion(image, *region, bytes, from, to, old_offset, [&](const WasmField& field) {
      uint64_t value;
      if (field.at < 0 || field.at + field.bytes > size || !ReadWasmNumber(fresh + field.at, field.form, field.bytes, value)) return;
      std::vector<Vote>& those = votes[static_cast<size_t>(field.space)];
      const int64_t shift = static_cast<int64_t>(value) - static_cast<int64_t>(field.value);
      if (those.size() < kMaxVotes && shift == static_cast<int32_t>(shift)) those.push_back({static_cast<uint32_t>(field.value), static_cast<int32_t>(shift)});
    });
  }
}

/** The cheapest runs: a number that is not as its run says costs something, and so does a run. */
class RunFinder {
 public:
  std::vector<IndexRun> Find(std::vector<Vote>& votes) {
    std::sort(votes.begin(), votes.end(), [](const Vote& a, const Vote& b) { return a.value != b.value ? a.value < b.value : a.shift < b.shift; });
    // Before the first number nothing is shifted.
    Enter(0, 0, kNone, 0);
    best_ = states_.begin()->second;
    for (size_t begin = 0, end; begin < votes.size(); begin = end) {
      for (end = begin; end < votes.size() && votes[end].value == votes[begin].value;) end++;
      Take(votes, begin, end);
    }
    return Trace();
  }

 private:
  /** In bits, about. */
  static constexpr int64_t kMissCost = 6, kRunCost = 16;
  static constexpr size_t kNone = ~size_t{0};
  struct State {
    int64_t cost;  // less what all states paid
    size_t record;
  };
  struct Record {
    IndexRun run;
    size_t before;
  };

  void Enter(uint32_t value, int32_t shift, size_t before, int64_t cost) {
    records_.push_back({{value, shift}, before});
    states_[shift] = {cost, records_.size() - 1};
  }

  /** Goes on to the next number: a state pays for each vote that is not for its shift, which is told as what it saves. */
  void Take(const std::vector<Vote>& votes, size_t begin, size_t end) {
    const State best = best_;
    for (size_t from = begin, to; from < end; from = to) {
      for (to = from; to < end && votes[to].shift == votes[from].shift;) to++;
      const int32_t shift = votes[from].shift;
      const int64_t saved = static_cast<int64_t>(to - from) * kMissCost;
      const auto state = states_.find(shift);
      if (state != states_.end() && state->second.cost <= best.cost + kRunCost) state->second.cost -= saved;
      else Enter(votes[begin].value, shift, best.record, best.cost + kRunCost - saved);
      const State& now = states_[shift];
      if (now.cost < best_.cost) best_ = now;
    }
  }

  std::vector<IndexRun> Trace() const {
    std::vector<IndexRun> runs;
    for (size_t record = best_.record; record != kNone; record = records_[record].before) runs.push_back(records_[record].run);
    std::reverse(runs.begin(), runs.end());
    if (runs.size() > kMaxIndexRuns) runs.resize(kMaxIndexRuns);
    runs.erase(runs.begin());
    return runs;
  }

  std::unordered_map<int32_t, State> states_;
  std::vector<Record> records_;
  State best_{};
};

}  // namespace

IndexRuns FindIndexRuns(const ElfImage& image, OldContent& old, OldContent& target, const std::vector<SmallOp>& ops) {
  IndexRuns runs;
  if (!image.wasm.found) return runs;
  constexpr size_t kChunk = 32 * 1024, kLead = ReferenceRewriter::kLead, kTrail = ReferenceRewriter::kTrail;
  std::vector<uint8_t> bytes(kLead + kChunk + kTrail), fresh(kChunk);
  std::array<std::vector<Vote>, kWasmSpaces> votes;
  for (const SmallOp& op : ops) {
    for (uint32_t done = 0; done < op.length; done += kChunk) {
      const size_t size = std::min<size_t>(kChunk, op.length - done);
      old.Fetch(static_cast<int64_t>(op.old_position) + done - static_cast<int64_t>(kLead), kLead + size + kTrail, bytes.data());
      target.Fetch(static_cast<int64_t>(op.new_position) + done, size, fresh.data());
      Collect(image, bytes.data() + kLead, fresh.data(), static_cast<int64_t>(size), uint64_t{op.old_position} + done, votes);
    }
  }
  for (size_t space = 0; space < kWasmSpaces; space++) runs[space] = RunFinder().Find(votes[space]);
  return runs;
}

}  // namespace whittle::codec
