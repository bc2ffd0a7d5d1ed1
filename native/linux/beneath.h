// Opening by path without ever leaving a root directory or following a symbolic link.
#pragma once

#include <fcntl.h>

#include <string>
#include <utility>
#include <vector>

namespace whittle {

/** Owns a descriptor. */
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

/** True for a relative path of non-empty components, none of them "." or "..", without NUL; the empty path is the root. */
bool IsPlainPath(const std::string& path);

/**
 * Opens `path` (plain) below `root` with O_CLOEXEC and O_NOFOLLOW added: by openat2 with RESOLVE_BENEATH and
 * RESOLVE_NO_SYMLINKS, or, where the kernel has none, is told so by a filter, or the path is too long for one call,
 * by walking it component by component. Returns -1 with errno set.
 */
int OpenBeneath(int root, const std::string& path, int flags, mode_t mode, bool walk_only);

/** A directory and a name in it; what every path-taking call works on. */
struct Place {
  int directory = -1;  // borrowed from the ParentCache
  std::string name;    // "." for the root itself
};

/** Finds the parent directory of paths; keeps the last few open. */
class ParentCache {
 public:
  ParentCache(int root, bool walk_only) : root_(root), walk_only_(walk_only) {}
  /** Returns 0 or an errno. */
  int Find(const std::string& path, Place* place);
  /** Finds two at once, both valid until the next call. */
  int FindBoth(const std::string& first_path, Place* first, const std::string& second_path, Place* second);
  /** Opens `path` itself. Returns -1 with errno set. */
  int Open(const std::string& path, int flags, mode_t mode = 0);
  /** Directories may have moved: forget all. */
  void Clear() { entries_.clear(); }

 private:
  static constexpr size_t kEntries = 8;
  struct Entry {
    std::string path;
    Fd fd;
  };
  int root_;
  bool walk_only_;
  std::vector<Entry> entries_;
  size_t next_ = 0;
};

}  // namespace whittle
