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

  /** `wanted_bytes`: the size of all files that Want will be told of, 0 when it is not called. */
  explicit BlockIndex(uint64_t memory_limit_bytes, uint64_t wanted_bytes = 0);

  /**
   * Says that a file will be asked for. Once one is, what only others have is no longer kept, which is most of an image; the answers
   * for those that were said before anything was added are the same. Throws CodedError when reading fails.
   */
  void Want(const Content& content);
  /** Adds a file. Throws CodedError when reading fails; what was read until then stays. */
  void Add(uint32_t id, const Content& content);
  /** The files with most in common, best first; ties by id. To be called when all are added: what is wanted is forgotten. */
  std::vector<Candidate> Query(const Content& content);
  /** Forgets every file and gives the memory back. */
  void Clear();

 private:
  struct Entry {
    uint32_t tag;
    uint32_t id;
  };

  size_t WantedBit(uint32_t tag) const;
  bool IsWanted(uint32_t tag) const;
  size_t SlotOf(uint32_t tag) const;
  void Insert(uint32_t tag, uint32_t id);
  void MakeRoom();
  void Rebuild(size_t slots);
  void CountFiles(uint32_t tag, std::unordered_map<uint32_t, uint64_t>& samples) const;

  std::mutex mutex_;
  int wanted_shift_;
  std::vector<uint64_t> wanted_;  // a bit for many tags each; empty when all are wanted
  size_t max_slots_;
  std::vector<Entry> entries_;
  size_t used_ = 0;
  int level_;  // samples of a lower level are not kept
  std::unordered_map<uint32_t, uint64_t> file_sizes_;
};

}  // namespace whittle
