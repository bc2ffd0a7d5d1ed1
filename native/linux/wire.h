// Little-endian fields of batches, bounds-checked on reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

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

class WireWriter {
 public:
  size_t size() const { return bytes_.size(); }
  void Clear() { bytes_.clear(); }
  void U8(uint8_t value) { bytes_.push_back(value); }
  void U16(uint16_t value) { Unsigned(value, 2); }
  void U32(uint32_t value) { Unsigned(value, 4); }
  void I32(int32_t value) { Unsigned(static_cast<uint32_t>(value), 4); }
  void U64(uint64_t value) { Unsigned(value, 8); }
  void I64(int64_t value) { Unsigned(static_cast<uint64_t>(value), 8); }
  void Raw(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  void String(const std::string& value) {
    U32(static_cast<uint32_t>(value.size()));
    Raw(value.data(), value.size());
  }
  void Append(const WireWriter& other) { Raw(other.bytes_.data(), other.bytes_.size()); }
  std::vector<uint8_t> Take() { return std::move(bytes_); }

 private:
  void Unsigned(uint64_t value, size_t count) {
    for (size_t index = 0; index < count; index++) bytes_.push_back(static_cast<uint8_t>(value >> (8 * index)));
  }
  std::vector<uint8_t> bytes_;
};

}  // namespace whittle
