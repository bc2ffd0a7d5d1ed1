// Dynamic programming over a small, changing set of tracks. A track is one way to code the bytes up to here that
// ends in a copy on one diagonal (old position minus new position), or in literals. Each byte adds to each track
// what coding it there would cost. A track that is dearer than leaving the cheapest one for its diagonal would be
// has nothing to tell any more. The index suggests diagonals; a new one may have started before it was found, so
// the costs of the last positions are kept and it starts where it would have been best to.
#include "match/aligner.h"

#include <algorithm>

namespace whittle {

namespace {

constexpr size_t kMaxTracks = 10;
constexpr size_t kHistory = 8192;  // positions that a new track may start back
constexpr size_t kBulkRun = 32;    // equal bytes from which on a run is taken at once
constexpr size_t kFirstCollection = size_t{1} << 16;

struct Node {
  size_t start;
  int64_t diagonal;
  int32_t previous;
};

struct Track {
  int64_t cost;
  int64_t diagonal;  // kLiteral for literals
  size_t start;
  int32_t previous;  // node of what came before `start`
  int32_t node;      // its own node once somebody else starts from it, else -1
  bool differed;     // the last byte
};

constexpr int64_t kLiteral = INT64_MIN;
constexpr int64_t kNoDiagonal = INT64_MAX;

class Aligner {
 public:
  Aligner(OldText& old, const uint8_t* fresh, size_t fresh_size, int64_t first_diagonal, const AlignmentCosts& costs)
      : text_(old), old_(old.text()), old_size_(old.size()), fresh_(fresh), fresh_size_(fresh_size), seed_length_(old.seed_length()), home_(first_diagonal), costs_(costs),
        history_cost_(kHistory), history_node_(kHistory) {}

  std::vector<MatchOp> Run() {
    tracks_.push_back({0, kLiteral, 0, -1, -1, false});
    if (InOld(0, home_)) tracks_.push_back({0, home_, 0, -1, -1, false});
    size_t position = 0;
    Settle(0);
    while (position < fresh_size_) {
      if (position >= next_query_) Query(position);
      const size_t run = BestRun(position);
      if (run >= kBulkRun) {
        TakeRun(position, run);
        position += run;
      } else {
        Step(position);
        position++;
      }
      Settle(position);
    }
    return Trace();
  }

 private:
  bool InOld(size_t position, int64_t diagonal) const {
    const int64_t at = static_cast<int64_t>(position) + diagonal;
    return at >= 0 && at < static_cast<int64_t>(old_size_);
  }

  int CopyCost(size_t position, int64_t diagonal, bool differed) const {
    const bool equal = old_[static_cast<int64_t>(position) + diagonal] == fresh_[position];
    return equal ? costs_.equal : differed ? costs_.also_different : costs_.different;
  }

  /** Equal bytes from `position` on along the cheapest copy. */
  size_t BestRun(size_t position) {
    const int64_t diagonal = tracks_[best_].diagonal;
    if (diagonal == kLiteral || !InOld(position, diagonal)) return 0;
    if (run_diagonal_ == diagonal && position <= run_end_) return run_end_ - position;
    const size_t old_position = static_cast<size_t>(static_cast<int64_t>(position) + diagonal);
    const size_t limit = std::min(fresh_size_ - position, old_size_ - old_position);
    run_diagonal_ = diagonal;
    run_end_ = position + CommonPrefix(old_ + old_position, fresh_ + position, limit);
    return run_end_ - position;
  }

  /** Asks the index about the bytes at `position`, unless the cheapest copy covers what an answer could. */
  void Query(size_t position) {
    const size_t run = BestRun(position);
    if (run >= seed_length_) {
      next_query_ = position + run - seed_length_ + 1;
      return;
    }
    if (index_ == nullptr) index_ = &text_.index();
    const SeedIndex::Match match = index_->Find(fresh_ + position, fresh_size_ - position, static_cast<int64_t>(position) + (home_ == kNoDiagonal ? 0 : home_));
    next_query_ = position + 1;
    if (match.length == 0) return;
    next_query_ = position + match.length - seed_length_ + 1;
    if (match.length > run) AddTrack(position, static_cast<int64_t>(match.position) - static_cast<int64_t>(position));
  }

  void AddTrack(size_t position, int64_t diagonal) {
    for (const Track& track : tracks_) {
      if (track.diagonal == diagonal) return;
    }
    const int64_t now = tracks_[best_].cost;
    Track track{now + costs_.enter_copy, diagonal, position, BestNode(), -1, false};
    int64_t cost = 0;
    bool differed = false;
    for (size_t at = position; at > history_from_ && position - at < kHistory - 1 && InOld(at - 1, diagonal);) {
      at--;
      cost += CopyCost(at, diagonal, differed);
      differed = old_[static_cast<int64_t>(at) + diagonal] != fresh_[at];
      const int64_t before = history_cost_[at % kHistory];
      const int64_t total = before + costs_.enter_copy + cost;
      if (total < track.cost) {
        track.cost = total;
        track.start = at;
        track.previous = history_node_[at % kHistory];
      }
      if (cost > now - before + costs_.enter_copy) break;
    }
    if (tracks_.size() >= kMaxTracks) DropDearest();
    tracks_.push_back(track);
  }

  void DropDearest() {
    size_t dearest = 0;
    for (size_t i = 1; i < tracks_.size(); i++) {
      if (i != best_ && (dearest == 0 || tracks_[i].cost > tracks_[dearest].cost)) dearest = i;
    }
    Remove(dearest);
  }

  void Remove(size_t index) {
    const size_t last = tracks_.size() - 1;
    tracks_[index] = tracks_[last];
    tracks_.pop_back();
    if (best_ == last) best_ = index;
  }

  /** Adds byte `position` to every track. */
  void Step(size_t position) {
    tracks_[0].cost += costs_.literal + literal_cost_.Next(fresh_, position) * costs_.literal_scale / 16;
    for (size_t i = 1; i < tracks_.size(); i++) {
      Track& track = tracks_[i];
      if (InOld(position, track.diagonal)) {
        track.cost += CopyCost(position, track.diagonal, track.differed);
        track.differed = old_[static_cast<int64_t>(position) + track.diagonal] != fresh_[position];
      } else {
        track.cost = INT64_MAX / 2;
        track.differed = true;
      }
    }
  }

  /** Adds `run` bytes that are equal along the cheapest copy. */
  void TakeRun(size_t position, size_t run) {
    const int64_t end_cost = tracks_[best_].cost + static_cast<int64_t>(run) * costs_.equal;
    for (size_t i = tracks_.size() - 1; i >= 1; i--) {
      Track& track = tracks_[i];
      if (i == best_) continue;
      size_t at = 0;
      int64_t best_cost = tracks_[best_].cost;
      while (at < run && track.cost <= best_cost + costs_.enter_copy) {
        if (!InOld(position + at, track.diagonal)) {
          track.cost = INT64_MAX / 2;
          break;
        }
        const size_t old_position = static_cast<size_t>(static_cast<int64_t>(position + at) + track.diagonal);
        const size_t equal = CommonPrefix(old_ + old_position, fresh_ + position + at, std::min(run - at, old_size_ - old_position));
        track.cost += static_cast<int64_t>(equal) * costs_.equal;
        best_cost += static_cast<int64_t>(equal) * costs_.equal;
        if (equal > 0) track.differed = false;
        at += equal;
        if (at < run && InOld(position + at, track.diagonal)) {
          track.cost += track.differed ? costs_.also_different : costs_.different;
          best_cost += costs_.equal;
          track.differed = true;
          at++;
        }
      }
      if (at < run || track.cost > end_cost + costs_.enter_copy) track.cost = INT64_MAX / 2;
    }
    Track& best = tracks_[best_];
    best.cost = end_cost;
    best.differed = false;
    tracks_[0].cost = INT64_MAX / 2;
    history_from_ = position + run;
  }

  /** After the bytes before `position`: finds the cheapest track, lets others start from it or go, and notes the costs. */
  void Settle(size_t position) {
    best_ = 0;
    for (size_t i = 1; i < tracks_.size(); i++) {
      if (tracks_[i].cost < tracks_[best_].cost || (best_ == 0 && tracks_[i].cost == tracks_[best_].cost)) best_ = i;
    }
    if (tracks_[best_].diagonal != kLiteral) home_ = tracks_[best_].diagonal;
    const int32_t node = BestNode();
    const int64_t cost = tracks_[best_].cost;
    if (tracks_[0].cost > cost + costs_.enter_literal) tracks_[0] = {cost + costs_.enter_literal, kLiteral, position, node, -1, false};
    for (size_t i = tracks_.size() - 1; i >= 1; i--) {
      Track& track = tracks_[i];
      if (track.diagonal == home_) {
        if (track.cost > cost + costs_.resume_copy) Restart(track, cost, position, node);
      } else if (track.cost > cost + costs_.enter_copy) {
        Remove(i);
      }
    }
    history_cost_[position % kHistory] = cost;
    history_node_[position % kHistory] = node;
    if (nodes_.size() >= collect_at_) CollectNodes(position);
  }

  void Restart(Track& track, int64_t cost, size_t position, int32_t node) {
    if (!InOld(position, track.diagonal)) {
      // Its end: keep it out of the way, but within bounds, until another copy becomes home.
      track.cost = cost + costs_.enter_copy;
    } else {
      track.cost = cost + costs_.resume_copy;
    }
    track.start = position;
    track.previous = node;
    track.node = -1;
    track.differed = false;
  }

  /** The node of the cheapest track as it stands. */
  int32_t BestNode() {
    Track& best = tracks_[best_];
    if (best.node < 0) {
      nodes_.push_back({best.start, best.diagonal, best.previous});
      best.node = static_cast<int32_t>(nodes_.size()) - 1;
    }
    return best.node;
  }

  /** Forgets nodes that no track and no remembered position leads to. */
  void CollectNodes(size_t position) {
    std::vector<int32_t> moved(nodes_.size(), -1);
    const auto mark = [&moved](int32_t node) {
      if (node >= 0) moved[static_cast<size_t>(node)] = 0;
    };
    const size_t oldest = std::max(history_from_, position >= kHistory ? position - kHistory + 1 : 0);
    for (const Track& track : tracks_) {
      mark(track.previous);
      mark(track.node);
    }
    for (size_t at = oldest; at <= position; at++) mark(history_node_[at % kHistory]);
    for (size_t i = nodes_.size(); i-- > 0;) {
      if (moved[i] == 0) mark(nodes_[i].previous);
    }
    int32_t count = 0;
    const auto follow = [&moved](int32_t& node) {
      if (node >= 0) node = moved[static_cast<size_t>(node)];
    };
    for (size_t i = 0; i < nodes_.size(); i++) {
      if (moved[i] != 0) continue;
      Node node = nodes_[i];
      follow(node.previous);
      moved[i] = count;
      nodes_[static_cast<size_t>(count++)] = node;
    }
    nodes_.resize(static_cast<size_t>(count));
    for (Track& track : tracks_) {
      follow(track.previous);
      follow(track.node);
    }
    for (size_t at = oldest; at <= position; at++) follow(history_node_[at % kHistory]);
    collect_at_ = std::max(kFirstCollection, 2 * nodes_.size());
  }

  std::vector<MatchOp> Trace() {
    std::vector<MatchOp> ops;
    size_t end = fresh_size_;
    for (int32_t i = BestNode(); i >= 0; i = nodes_[static_cast<size_t>(i)].previous) {
      const Node& node = nodes_[static_cast<size_t>(i)];
      if (node.diagonal != kLiteral && node.start < end) {
        const uint64_t old_position = static_cast<uint64_t>(static_cast<int64_t>(node.start) + node.diagonal);
        const bool joins = !ops.empty() && ops.back().new_position == end && ops.back().old_position == old_position + (end - node.start);
        if (joins) {
          ops.back() = {node.start, old_position, ops.back().length + (end - node.start)};
        } else {
          ops.push_back({node.start, old_position, end - node.start});
        }
      }
      end = node.start;
    }
    std::reverse(ops.begin(), ops.end());
    return ops;
  }

  OldText& text_;
  const uint8_t* old_;
  size_t old_size_;
  const uint8_t* fresh_;
  size_t fresh_size_;
  size_t seed_length_;
  int64_t home_;  // diagonal where the cheapest copy was last
  AlignmentCosts costs_;
  LiteralCost literal_cost_;
  const SeedIndex* index_ = nullptr;

  std::vector<Track> tracks_;  // [0] is the one of literals
  size_t best_ = 0;
  size_t next_query_ = 0;
  int64_t run_diagonal_ = kNoDiagonal;
  size_t run_end_ = 0;
  std::vector<int64_t> history_cost_;  // of the cheapest track before each of the last positions
  std::vector<int32_t> history_node_;
  size_t history_from_ = 0;
  std::vector<Node> nodes_;
  size_t collect_at_ = kFirstCollection;
};

}  // namespace

AlignmentCosts CostsFor(const uint8_t* bytes, size_t size) {
  AlignmentCosts costs;
  const size_t sample = std::min<size_t>(size, 65536);
  size_t odd = 0;
  for (size_t i = 0; i < sample; i++) odd += bytes[i] < 9 || (bytes[i] > 13 && bytes[i] < 32) ? 1 : 0;
  if (odd * 100 <= sample) {
    costs.literal = 2;
    costs.literal_scale = 7;
    costs.different = 144;
    costs.also_different = 80;
    costs.enter_copy = 600;
  }
  return costs;
}

std::vector<MatchOp> Align(OldText& old, const uint8_t* fresh, size_t fresh_size, int64_t first_diagonal, const AlignmentCosts& costs) {
  return Aligner(old, fresh, fresh_size, first_diagonal, costs).Run();
}

}  // namespace whittle
