// Reading content in place: the concatenation of stretches of open files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace whittle {

/** An error with a stable code that JavaScript sees as `error.code`: an errno name, or CONTENT_SHORT. */
struct CodedError : std::runtime_error {
  CodedError(std::string error_code, const std::string& message)
      : std::runtime_error(message), code(std::move(error_code)) {}
  std::string code;
};

/** Throws the CodedError of an errno value; `what` says what was tried. */
[[noreturn]] void ThrowErrno(int error_number, const std::string& what);

/** One stretch of an open file. */
struct Extent {
  uint64_t offset;
  uint64_t length;
};

/** Content as JavaScript names it (`NativeContent`). The descriptor is borrowed. */
struct Content {
  int fd = -1;
  std::vector<Extent> extents;
  uint64_t size = 0;
};

/**
 * Reads the concatenation of contents by pread, through a small cache that makes many short reads near each
 * other cheap. Not for use by two threads at once. Throws CodedError: the errno's name when a read fails,
 * CONTENT_SHORT when a file ends before its extent does.
 */
class ContentReader {
 public:
  static constexpr size_t kBlockBytes = 32 * 1024;
  static constexpr size_t kDefaultCacheBytes = 512 * 1024;

  ContentReader() = default;
  /** `cache_bytes` is rounded down to whole blocks, at least one. Memory is taken when first needed. */
  explicit ContentReader(const std::vector<Content>& contents, size_t cache_bytes = kDefaultCacheBytes);

  uint64_t size() const { return size_; }

  /** Copies bytes [position, position + length) to `destination`. The range must lie within size(), else std::out_of_range. */
  void Read(uint64_t position, size_t length, uint8_t* destination);

 private:
  struct Piece {
    uint64_t start;  // position of its first byte in the concatenation
    uint64_t length;
    uint64_t offset;  // of its first byte in the file
    int fd;
  };

  void ReadDirect(uint64_t position, size_t length, uint8_t* destination);
  const uint8_t* Block(uint64_t number);
  size_t FindPiece(uint64_t position);

  std::vector<Piece> pieces_;
  uint64_t size_ = 0;
  size_t last_piece_ = 0;
  size_t slot_count_ = 1;
  std::vector<uint64_t> slot_block_;  // block number + 1 of each slot, 0 when empty
  std::unique_ptr<uint8_t[]> cache_;
};

}  // namespace whittle
