#include "common/content.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

namespace whittle {

namespace {

std::string ErrnoName(int error_number) {
  switch (error_number) {
    case EIO: return "EIO";
    case EBADF: return "EBADF";
    case EACCES: return "EACCES";
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case EEXIST: return "EEXIST";
    case EINVAL: return "EINVAL";
    case EISDIR: return "EISDIR";
    case ENOTDIR: return "ENOTDIR";
    case ENOTEMPTY: return "ENOTEMPTY";
    case ENOSPC: return "ENOSPC";
    case EDQUOT: return "EDQUOT";
    case EROFS: return "EROFS";
    case ENOTSUP: return "ENOTSUP";
    case ENOSYS: return "ENOSYS";
    case ENODATA: return "ENODATA";
    case ENOTTY: return "ENOTTY";
    case ENODEV: return "ENODEV";
    case ENXIO: return "ENXIO";
    case ENOMEM: return "ENOMEM";
    case EMLINK: return "EMLINK";
    case ELOOP: return "ELOOP";
    case ENAMETOOLONG: return "ENAMETOOLONG";
    case ERANGE: return "ERANGE";
    case E2BIG: return "E2BIG";
    case EFBIG: return "EFBIG";
    case EXDEV: return "EXDEV";
    case EBUSY: return "EBUSY";
    case EAGAIN: return "EAGAIN";
    case EMFILE: return "EMFILE";
    case ENFILE: return "ENFILE";
    case ESTALE: return "ESTALE";
    case ESPIPE: return "ESPIPE";
    case ETXTBSY: return "ETXTBSY";
    default: return "ERRNO_" + std::to_string(error_number);
  }
}

}  // namespace

void ThrowErrno(int error_number, const std::string& what) {
  const std::string name = ErrnoName(error_number);
  throw CodedError(name, name + ": " + what + ": " + strerror(error_number));
}

ContentReader::ContentReader(const std::vector<Content>& contents, size_t cache_bytes)
    : slot_count_(std::max<size_t>(1, cache_bytes / kBlockBytes)) {
  for (const Content& content : contents) {
    for (const Extent& extent : content.extents) {
      if (extent.length == 0) continue;
      pieces_.push_back({size_, extent.length, extent.offset, content.fd});
      size_ += extent.length;
    }
  }
}

size_t ContentReader::FindPiece(uint64_t position) {
  const auto holds = [&](size_t index) {
    return index < pieces_.size() && position - pieces_[index].start < pieces_[index].length && position >= pieces_[index].start;
  };
  if (holds(last_piece_)) return last_piece_;
  if (holds(last_piece_ + 1)) return ++last_piece_;
  const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), position,
                                      [](uint64_t value, const Piece& piece) { return value < piece.start; });
  return last_piece_ = static_cast<size_t>(after - pieces_.begin()) - 1;
}

void ContentReader::ReadDirect(uint64_t position, size_t length, uint8_t* destination) {
  while (length > 0) {
    const Piece& piece = pieces_[FindPiece(position)];
    const uint64_t within = position - piece.start;
    const size_t wanted = static_cast<size_t>(std::min<uint64_t>({length, piece.length - within, uint64_t{1} << 30}));
    const ssize_t got = pread(piece.fd, destination, wanted, static_cast<off_t>(piece.offset + within));
    if (got < 0) {
      if (errno == EINTR) continue;
      ThrowErrno(errno, "reading descriptor " + std::to_string(piece.fd) + " at " + std::to_string(piece.offset + within));
    }
    if (got == 0) {
      throw CodedError("CONTENT_SHORT", "descriptor " + std::to_string(piece.fd) + " ends at or before " +
                                            std::to_string(piece.offset + within) + ", but its extent goes on to " +
                                            std::to_string(piece.offset + piece.length));
    }
    position += static_cast<uint64_t>(got);
    destination += got;
    length -= static_cast<size_t>(got);
  }
}

const uint8_t* ContentReader::Block(uint64_t number) {
  if (!cache_) {
    slot_count_ = static_cast<size_t>(std::min<uint64_t>(slot_count_, size_ / kBlockBytes + 1));
    cache_.reset(new uint8_t[slot_count_ * kBlockBytes]);
    slot_block_.assign(slot_count_, 0);
  }
  const size_t slot = static_cast<size_t>(number % slot_count_);
  uint8_t* block = cache_.get() + slot * kBlockBytes;
  if (slot_block_[slot] == number + 1) return block;
  slot_block_[slot] = 0;
  const uint64_t start = number * kBlockBytes;
  ReadDirect(start, static_cast<size_t>(std::min<uint64_t>(kBlockBytes, size_ - start)), block);
  slot_block_[slot] = number + 1;
  return block;
}

void ContentReader::Read(uint64_t position, size_t length, uint8_t* destination) {
  if (position > size_ || length > size_ - position) throw std::out_of_range("content read past its end");
  while (length > 0) {
    const size_t within = static_cast<size_t>(position % kBlockBytes);
    size_t count;
    if (within == 0 && length >= kBlockBytes) {
      // Whole blocks go straight to the caller: a long copy must not wash the cache out.
      count = length - length % kBlockBytes;
      ReadDirect(position, count, destination);
    } else {
      count = std::min(length, kBlockBytes - within);
      memcpy(destination, Block(position / kBlockBytes) + within, count);
    }
    position += count;
    destination += count;
    length -= count;
  }
}

}  // namespace whittle
