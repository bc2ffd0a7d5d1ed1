// Large arrays for random access.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace whittle {

/** Uninitialised numbers, on huge pages where the kernel grants them: random access then misses the TLB far less. */
template <typename T>
class HugeArray {
 public:
  HugeArray() = default;
  explicit HugeArray(size_t count) : count_(count) {
    constexpr size_t kHugePage = size_t{2} << 20;
    const size_t bytes = count * sizeof(T);
    const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
    void* memory = nullptr;
    if (count > SIZE_MAX / sizeof(T) || posix_memalign(&memory, alignment, bytes == 0 ? 1 : bytes) != 0) throw std::bad_alloc();
    if (alignment == kHugePage) (void)madvise(memory, bytes, MADV_HUGEPAGE);  // only a hint
    data_ = static_cast<T*>(memory);
  }
  ~HugeArray() { std::free(data_); }
  HugeArray(HugeArray&& other) noexcept : data_(other.data_), count_(other.count_) {
    other.data_ = nullptr;
    other.count_ = 0;
  }
  HugeArray& operator=(HugeArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t index) { return data_[index]; }
  const T& operator[](size_t index) const { return data_[index]; }

 private:
  T* data_ = nullptr;
  size_t count_ = 0;
};

}  // namespace whittle
