// Induced sorting. A suffix is of type S when it is smaller than the suffix one to the right, else of type L; the
// empty suffix at the end is smaller than all. LMS suffixes are those of type S with one of type L to their left.
// Sorted LMS suffixes determine the order of all L suffixes (one scan to the right) and these that of all S
// suffixes (one scan to the left). The LMS suffixes are sorted by naming the stretches between them and
// sorting the string of names the same way.
//
// The scans visit text positions in random order, so that nearly every step would wait for memory: each
// scan prefetches what it will need some steps ahead.
#include "match/suffix_array.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace whittle {

namespace {

constexpr int32_t kPrefetch = 24;

inline void Prefetch(const void* address) { __builtin_prefetch(address, 0); }
inline void PrefetchForWrite(const void* address) { __builtin_prefetch(address, 1); }

/** One level of the recursion: Symbol is uint8_t for the text itself, int32_t for strings of names. */
template <typename Symbol>
class Level {
 public:
  /** `buckets` has room for 2 * alphabet numbers. */
  Level(const Symbol* text, int32_t* suffixes, int32_t size, int32_t alphabet, int32_t* buckets)
      : text_(text), sa_(suffixes), size_(size), alphabet_(alphabet), counts_(buckets), edges_(buckets + alphabet) {}

  void Sort() {
    std::fill(counts_, counts_ + alphabet_, 0);
    for (int32_t i = 0; i < size_; i++) counts_[text_[i]]++;
    SortLmsSubstrings();
    const int32_t lms_count = CollectLms();
    const int32_t names = NameLmsSubstrings(lms_count);
    if (lms_count > 0) SortLmsSuffixes(lms_count, names);
    InduceAll(lms_count);
  }

 private:
  void SetHeads() {
    int32_t sum = 0;
    for (int32_t c = 0; c < alphabet_; c++) {
      edges_[c] = sum;
      sum += counts_[c];
    }
  }

  void SetTails() {
    int32_t sum = 0;
    for (int32_t c = 0; c < alphabet_; c++) {
      sum += counts_[c];
      edges_[c] = sum;
    }
  }

  /** Calls visit(position) for every LMS position from right to left. */
  template <typename Visit>
  void ForEachLmsFromRight(Visit visit) const {
    bool right_is_s = false;  // the last suffix is L: the empty one is smaller
    for (int32_t i = size_ - 2; i >= 0; i--) {
      const bool is_s = text_[i] < text_[i + 1] || (text_[i] == text_[i + 1] && right_is_s);
      if (!is_s && right_is_s) visit(i + 1);
      right_is_s = is_s;
    }
  }

  /** Hints for the step that visits sa_[index]; the symbol's bucket is a second random access on names. */
  void PrefetchStep(int32_t index, int32_t far_index) const {
    if (sizeof(Symbol) == 1) {
      const int32_t position = sa_[index];
      if (position > 0) Prefetch(text_ + position - 1);
      return;
    }
    const int32_t far_position = sa_[far_index];
    if (far_position > 1) Prefetch(text_ + far_position - 2);
    const int32_t position = sa_[index];
    if (position > 0) PrefetchForWrite(edges_ + text_[position - 1]);
  }

  /** Puts L suffix `position` at its bucket's head; negative when the suffix to its left is S and so not for this scan. */
  void PushL(int32_t position) {
    const Symbol symbol = text_[position];
    sa_[edges_[symbol]++] = position > 0 && text_[position - 1] < symbol ? ~position : position;
  }

  /** Puts S suffix `position` at its bucket's tail; negative when the suffix to its left is L (or none) and so not for this scan. */
  void PushS(int32_t position) {
    const Symbol symbol = text_[position];
    sa_[--edges_[symbol]] = position == 0 || text_[position - 1] > symbol ? ~position : position;
  }

  /** Step 1: sorts by LMS substring; leaves ~position of the LMS suffixes, in that order, among zeros and positives that are done. */
  void SortLmsSubstrings() {
    std::memset(sa_, 0, sizeof(int32_t) * static_cast<size_t>(size_));
    SetTails();
    ForEachLmsFromRight([this](int32_t position) { sa_[--edges_[text_[position]]] = position; });
    SetHeads();
    PushL(size_ - 1);
    for (int32_t i = 0; i < size_; i++) {
      PrefetchStep(std::min(i + kPrefetch, size_ - 1), std::min(i + 2 * kPrefetch, size_ - 1));
      const int32_t position = sa_[i];
      if (position > 0) {
        sa_[i] = 0;
        PushL(position - 1);
      } else if (position < 0) {
        sa_[i] = ~position;
      }
    }
    SetTails();
    for (int32_t i = size_ - 1; i >= 0; i--) {
      PrefetchStep(std::max(i - kPrefetch, 0), std::max(i - 2 * kPrefetch, 0));
      const int32_t position = sa_[i];
      if (position > 0) {
        sa_[i] = 0;
        if (position > 1) PushS(position - 1);
      }
    }
  }

  /** Moves the sorted LMS positions to the front; returns how many there are. */
  int32_t CollectLms() {
    int32_t count = 0;
    for (int32_t i = 0; i < size_; i++) {
      if (sa_[i] < 0) sa_[count++] = ~sa_[i];
    }
    return count;
  }

  /** Step 2: writes the string of names to the last `lms_count` slots, in text order; returns the number of names. */
  int32_t NameLmsSubstrings(int32_t lms_count) {
    // LMS positions are at least two apart: half a position is a slot of its own, first for lengths, then for names.
    int32_t* slots = sa_ + lms_count;
    std::fill(slots, sa_ + size_, -1);
    int32_t next = -1;
    int32_t last = -1;
    ForEachLmsFromRight([&](int32_t position) {
      if (next < 0) last = position;
      slots[position >> 1] = next < 0 ? size_ - position : next - position + 1;
      next = position;
    });
    int32_t name = -1;
    int32_t previous = -1;
    int32_t previous_length = -1;
    for (int32_t i = 0; i < lms_count; i++) {
      if (i + kPrefetch < lms_count) {
        Prefetch(text_ + sa_[i + kPrefetch]);
        PrefetchForWrite(slots + (sa_[i + kPrefetch] >> 1));
      }
      const int32_t position = sa_[i];
      const int32_t length = slots[position >> 1];
      // The rightmost LMS substring ends in the end of the text, which no other does.
      const bool same = length == previous_length && position != last && previous != last &&
                        std::memcmp(text_ + position, text_ + previous, sizeof(Symbol) * static_cast<size_t>(length)) == 0;
      if (!same) name++;
      slots[position >> 1] = name;
      previous = position;
      previous_length = length;
    }
    int32_t* target = sa_ + size_;
    for (int32_t* slot = sa_ + size_; slot-- > slots;) {
      if (*slot >= 0) *--target = *slot;
    }
    return name + 1;
  }

  /** Step 3: leaves the sorted LMS suffixes in the first `lms_count` slots. */
  void SortLmsSuffixes(int32_t lms_count, int32_t names) {
    int32_t* reduced = sa_ + size_ - lms_count;
    if (names == lms_count) {
      for (int32_t i = 0; i < lms_count; i++) sa_[reduced[i]] = i;
    } else {
      const int64_t gap = static_cast<int64_t>(size_) - 2 * static_cast<int64_t>(lms_count);
      std::unique_ptr<int32_t[]> extra;
      int32_t* buckets = sa_ + lms_count;
      if (gap < 2 * static_cast<int64_t>(names)) {
        extra.reset(new int32_t[2 * static_cast<size_t>(names)]);
        buckets = extra.get();
      }
      Level<int32_t>(reduced, sa_, lms_count, names, buckets).Sort();
    }
    int32_t* target = sa_ + size_;
    ForEachLmsFromRight([&target](int32_t position) { *--target = position; });
    for (int32_t i = 0; i < lms_count; i++) sa_[i] = reduced[sa_[i]];
  }

  /** Step 4: from the sorted LMS suffixes to all suffixes. */
  void InduceAll(int32_t lms_count) {
    std::fill(sa_ + lms_count, sa_ + size_, 0);
    SetTails();
    for (int32_t i = lms_count - 1; i >= 0; i--) {
      const int32_t position = sa_[i];
      sa_[i] = 0;
      sa_[--edges_[text_[position]]] = position;
    }
    SetHeads();
    PushL(size_ - 1);
    for (int32_t i = 0; i < size_; i++) {
      PrefetchStep(std::min(i + kPrefetch, size_ - 1), std::min(i + 2 * kPrefetch, size_ - 1));
      const int32_t position = sa_[i];
      sa_[i] = ~position;
      if (position > 0) PushL(position - 1);
    }
    SetTails();
    for (int32_t i = size_ - 1; i >= 0; i--) {
      PrefetchStep(std::max(i - kPrefetch, 0), std::max(i - 2 * kPrefetch, 0));
      const int32_t position = sa_[i];
      if (position > 0) {
        PushS(position - 1);
      } else {
        sa_[i] = ~position;
      }
    }
  }

  const Symbol* text_;
  int32_t* sa_;
  int32_t size_;
  int32_t alphabet_;
  int32_t* counts_;
  int32_t* edges_;
};

}  // namespace

void SortSuffixes(const uint8_t* text, int32_t* suffixes, int32_t size) {
  if (size <= 0) return;
  int32_t buckets[2 * 256];
  Level<uint8_t>(text, suffixes, size, 256, buckets).Sort();
}

}  // namespace whittle
