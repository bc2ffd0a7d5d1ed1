// Finds the files that have the most content in common with a given one.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "common/content.h"

namespace whittle {

/**
 * A table of sampled windows of many files, of bounded size: when it fills up, it keeps every second sample.
 * Deterministic when files are added one after the other in the same order.
 */
class BlockIndex {
 public:
  struct Candidate {
    uint32_t id;
    uint64_t shared_bytes;  // estimate
  };
  static constexpr size_t kMaxCandidates = 16;
  static constexpr uint64_t kMinMemoryBytes = uint64_t{1} << 16;

  explicit BlockIndex(uint64_t memory_limit_bytes);

  /** Adds a file. Throws CodedError when reading fails; what was read until then stays. */
  void Add(uint32_t id, const Content& content);
  /** The files with most in common, best first; ties by id. */
  std::vector<Candidate> Query(const Content& content);
  /** Forgets every file and gives the memory back. */
  void Clear();

 private:
  struct Entry {
    uint32_t tag;
    uint32_t id;
  };

  size_t SlotOf(uint32_t tag) const;
  void Insert(uint32_t tag, uint32_t id);
  void MakeRoom();
  void Rebuild(size_t slots);
  void CountFiles(uint32_t tag, std::unordered_map<uint32_t, uint64_t>& samples) const;

  std::mutex mutex_;
  size_t max_slots_;
  std::vector<Entry> entries_;
  size_t used_ = 0;
  int level_;  // samples of a lower level are not kept
  std::unordered_map<uint32_t, uint64_t> file_sizes_;
};

}  // namespace whittle
