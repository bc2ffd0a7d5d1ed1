// Little-endian fields of batches, bounds-checked on reading.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

namespace whittle {

class WireReader {
 public:
  WireReader(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool AtEnd() const { return offset_ == size_; }
  uint8_t U8() { return *Take(1); }
  uint16_t U16() { return static_cast<uint16_t>(Unsigned(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Unsigned(4)); }
  uint64_t U64() { return Unsigned(8); }
  int64_t I64() { return static_cast<int64_t>(Unsigned(8)); }
  /** A u32 length, then bytes, which stay where they are. */
  const uint8_t* Bytes(size_t* size) {
    *size = U32();
    return Take(*size);
  }
  std::string String() {
    size_t size = 0;
    const uint8_t* bytes = Bytes(&size);
    return std::string(reinterpret_cast<const char*>(bytes), size);
  }

 private:
  const uint8_t* Take(size_t count) {
    if (count > size_ - offset_) throw std::runtime_error("batch ends too early");
    const uint8_t* at = data_ + offset_;
    offset_ += count;
    return at;
  }
  uint64_t Unsigned(size_t count) {
    const uint8_t* at = Take(count);
    uint64_t value = 0;
    for (size_t index = 0; index < count; index++) value |= static_cast<uint64_t>(at[index]) << (8 * index);
    return value;
  }

  const uint8_t* data_;
  size_t size_;
  size_t offset_ = 0;
};

/** What a batch answers. It is written into memory that the caller has, and moves into memory of its own once that is full. */
class WireWriter {
 public:
  WireWriter(uint8_t* room, size_t room_size) : data_(room), capacity_(room_size) {}
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  /** Whether everything is in the caller's memory. */
  bool IsInRoom() const { return !own_; }
  void U8(uint8_t value) { *Extend(1) = value; }
  void U16(uint16_t value) { Unsigned(value, 2); }
  void U32(uint32_t value) { Unsigned(value, 4); }
  void I32(int32_t value) { Unsigned(static_cast<uint32_t>(value), 4); }
  void U64(uint64_t value) { Unsigned(value, 8); }
  void I64(int64_t value) { Unsigned(static_cast<uint64_t>(value), 8); }
  void Raw(const void* data, size_t size) {
    if (size > 0) memcpy(Extend(size), data, size);
  }
  void String(const std::string& value) {
    U32(static_cast<uint32_t>(value.size()));
    Raw(value.data(), value.size());
  }
  /** Memory for the next `count` bytes, for the caller to fill in; good until something else is written. */
  uint8_t* Extend(size_t count) {
    if (count > capacity_ - size_) Grow(count);
    uint8_t* at = data_ + size_;
    size_ += count;
    return at;
  }
  /** Takes back all after the first `size` bytes. */
  void Truncate(size_t size) { size_ = size; }
  /** Replaces four bytes that were written before. */
  void PutU32(size_t at, uint32_t value) { Put(data_ + at, value, 4); }

 private:
  static constexpr size_t kLeastGrown = 512;
  static void Put(uint8_t* at, uint64_t value, size_t count) {
    for (size_t index = 0; index < count; index++) at[index] = static_cast<uint8_t>(value >> (8 * index));
  }
  void Unsigned(uint64_t value, size_t count) { Put(Extend(count), value, count); }
  void Grow(size_t count) {
    const size_t capacity = std::max({2 * capacity_, size_ + count, kLeastGrown});
    // Not a vector: it would clear what is about to be written.
    std::unique_ptr<uint8_t[]> grown(new uint8_t[capacity]);
    if (size_ > 0) memcpy(grown.get(), data_, size_);
    own_ = std::move(grown);
    data_ = own_.get();
    capacity_ = capacity;
  }

  uint8_t* data_;
  size_t capacity_;
  size_t size_ = 0;
  std::unique_ptr<uint8_t[]> own_;
};

}  // namespace whittle
