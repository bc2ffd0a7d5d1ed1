#include "linux/beneath.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace whittle {

namespace {

// Declared here: the headers of older systems lack them. The number is the same on every architecture.
constexpr long kSysOpenat2 = 437;
constexpr uint64_t kResolveNoMagicLinks = 0x02;
constexpr uint64_t kResolveNoSymlinks = 0x04;
constexpr uint64_t kResolveBeneath = 0x08;
struct OpenHow {
  uint64_t flags;
  uint64_t mode;
  uint64_t resolve;
};

// The kernel refuses paths of 4096 bytes or more; walking has no such bound.
constexpr size_t kLongestSinglePath = 4000;

std::atomic<bool> openat2_missing{false};

int Openat2(int root, const char* path, int flags, mode_t mode) {
  OpenHow how{};
  how.flags = static_cast<uint64_t>(static_cast<unsigned>(flags));
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = kResolveBeneath | kResolveNoSymlinks | kResolveNoMagicLinks;
  for (;;) {
    const long fd = syscall(kSysOpenat2, root, path, &how, sizeof how);
    // EAGAIN: a rename elsewhere on the system made the kernel unsure; it asks to be asked again.
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) return static_cast<int>(fd);
  }
}

int OpenRetrying(int directory, const char* name, int flags, mode_t mode) {
  for (;;) {
    const int fd = openat(directory, name, flags, mode);
    if (fd >= 0 || errno != EINTR) return fd;
  }
}

int Walk(int root, const std::string& path, int flags, mode_t mode) {
  Fd current;
  size_t start = 0;
  for (;;) {
    const size_t slash = path.find('/', start);
    const std::string name = path.substr(start, slash == std::string::npos ? slash : slash - start);
    const int directory = current ? current.get() : root;
    if (slash == std::string::npos) return OpenRetrying(directory, name.c_str(), flags, mode);
    Fd next(OpenRetrying(directory, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
    if (!next) return -1;
    current = std::move(next);
    start = slash + 1;
  }
}

}  // namespace

void Fd::reset() {
  if (fd_ >= 0) {
    const int saved = errno;
    close(fd_);
    errno = saved;
  }
  fd_ = -1;
}

bool IsPlainPath(const std::string& path) {
  if (path.empty()) return true;
  if (path.find('\0') != std::string::npos) return false;
  size_t start = 0;
  for (;;) {
    const size_t slash = path.find('/', start);
    const size_t length = (slash == std::string::npos ? path.size() : slash) - start;
    if (length == 0 || (length == 1 && path[start] == '.') || (length == 2 && path[start] == '.' && path[start + 1] == '.')) return false;
    if (slash == std::string::npos) return true;
    start = slash + 1;
  }
}

int OpenBeneath(int root, const std::string& path, int flags, mode_t mode, bool walk_only) {
  flags |= O_CLOEXEC | O_NOFOLLOW;
  if (path.empty()) return OpenRetrying(root, ".", flags, mode);
  if (!walk_only && path.size() < kLongestSinglePath && !openat2_missing.load(std::memory_order_relaxed)) {
    const int fd = Openat2(root, path.c_str(), flags, mode);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
    // Container runtimes' filters answer EPERM to calls they do not know. A true EPERM comes again from the walk.
    if (errno == ENOSYS) openat2_missing.store(true, std::memory_order_relaxed);
  }
  return Walk(root, path, flags, mode);
}

int ParentCache::Find(const std::string& path, Place* place) {
  if (!IsPlainPath(path)) return EINVAL;
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) {
    *place = {root_, path.empty() ? "." : path};
    return 0;
  }
  const std::string parent = path.substr(0, slash);
  for (const Entry& entry : entries_) {
    if (entry.path == parent) {
      *place = {entry.fd.get(), path.substr(slash + 1)};
      return 0;
    }
  }
  Fd fd(OpenBeneath(root_, parent, O_PATH | O_DIRECTORY, 0, walk_only_));
  if (!fd) return errno;
  if (entries_.size() < kEntries) {
    entries_.emplace_back();
    next_ = entries_.size() - 1;
  } else {
    next_ = (next_ + 1) % kEntries;
  }
  Entry& entry = entries_[next_];
  entry.path = parent;
  entry.fd = std::move(fd);
  *place = {entry.fd.get(), path.substr(slash + 1)};
  return 0;
}

int ParentCache::FindBoth(const std::string& first_path, Place* first, const std::string& second_path, Place* second) {
  int error = Find(first_path, first);
  if (error == 0) error = Find(second_path, second);
  // The second may have taken the first's slot. Asking again never takes the second's: it is the newest.
  return error == 0 ? Find(first_path, first) : error;
}

int ParentCache::Open(const std::string& path, int flags, mode_t mode) {
  if (!IsPlainPath(path)) {
    errno = EINVAL;
    return -1;
  }
  return OpenBeneath(root_, path, flags, mode, walk_only_);
}

}  // namespace whittle
