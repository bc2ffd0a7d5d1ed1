#include "linux/attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace whittle {

namespace {

/** A path that reaches `place` through its open directory; the l*xattr calls do not follow its last component. */
std::string ProcPath(const Place& place) { return "/proc/self/fd/" + std::to_string(place.directory) + "/" + place.name; }

// The headers may be older than the kernel. Linux before 6.6 answers ENOSYS, as for the number that does not exist.
#if defined(__NR_fchmodat2)
constexpr long kFchmodat2 = __NR_fchmodat2;
#elif defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) || defined(__arm__)
constexpr long kFchmodat2 = 452;
#else
constexpr long kFchmodat2 = -1;
#endif

int SetMode(const Place& place, mode_t mode) {
  if (syscall(kFchmodat2, place.directory, place.name.c_str(), mode, AT_SYMLINK_NOFOLLOW) == 0) return 0;
  // fchmodat cannot refuse links before Linux 6.6, and opening a device would wake it: O_PATH does neither.
  Fd fd(openat(place.directory, place.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return errno;
  struct stat st;
  if (fstat(fd.get(), &st) != 0) return errno;
  if (S_ISLNK(st.st_mode)) return 0;
  if (chmod(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), mode) == 0) return 0;
  if (errno != ENOENT) return errno;
  return fchmodat(place.directory, place.name.c_str(), mode, 0) == 0 ? 0 : errno;
}

/** Attributes that the kernel gives to files by itself. */
bool IsKernelsOwn(const std::string& name) { return name == "security.selinux" || name == "security.ima" || name == "security.evm"; }

void RemoveOthers(const Place& place, const Attributes& attributes, std::vector<AttributeError>* errors) {
  std::vector<Xattr> found;
  const int error = GetXattrs(place, &found);
  if (error != 0) errors->push_back({error, Attributes::kXattrs, 0});
  for (const Xattr& xattr : found) {
    bool wanted = IsKernelsOwn(xattr.name);
    for (const Xattr& each : attributes.xattrs) wanted = wanted || each.name == xattr.name;
    if (!wanted && lremovexattr(ProcPath(place).c_str(), xattr.name.c_str()) != 0) errors->push_back({errno, Attributes::kXattrs, 0});
  }
}

bool SameTime(const struct stat& st, const Attributes& attributes) {
  return static_cast<int64_t>(st.st_mtim.tv_sec) == attributes.mtime_sec && static_cast<uint32_t>(st.st_mtim.tv_nsec) == attributes.mtime_nsec;
}

void FillTimes(const Attributes& attributes, struct timespec* times) {
  times[0].tv_sec = 0;
  times[0].tv_nsec = UTIME_OMIT;
  times[1].tv_sec = static_cast<time_t>(attributes.mtime_sec);
  times[1].tv_nsec = static_cast<long>(attributes.mtime_nsec);
}

}  // namespace

void SetAttributesOfOpen(int fd, const Attributes& attributes, std::vector<AttributeError>* errors) {
  if ((attributes.set & Attributes::kOwner) != 0 && fchown(fd, attributes.uid, attributes.gid) != 0) errors->push_back({errno, Attributes::kOwner, 0});
  if ((attributes.set & Attributes::kMode) != 0 && fchmod(fd, attributes.mode) != 0) errors->push_back({errno, Attributes::kMode, 0});
  if ((attributes.set & Attributes::kXattrs) != 0) {
    for (size_t index = 0; index < attributes.xattrs.size(); index++) {
      const Xattr& xattr = attributes.xattrs[index];
      if (fsetxattr(fd, xattr.name.c_str(), xattr.value.data(), xattr.value.size(), 0) != 0) {
        errors->push_back({errno, Attributes::kXattrs, static_cast<uint16_t>(index)});
      }
    }
  }
  if ((attributes.set & Attributes::kTime) == 0) return;
  struct timespec times[2];
  FillTimes(attributes, times);
  if (futimens(fd, times) != 0) errors->push_back({errno, Attributes::kTime, 0});
}

void SetAttributes(const Place& place, const Attributes& attributes, const struct stat* known, std::vector<AttributeError>* errors) {
  bool owner_changed = false;
  if ((attributes.set & Attributes::kOwner) != 0 && (known == nullptr || known->st_uid != attributes.uid || known->st_gid != attributes.gid)) {
    owner_changed = true;
    if (fchownat(place.directory, place.name.c_str(), attributes.uid, attributes.gid, AT_SYMLINK_NOFOLLOW) != 0) {
      errors->push_back({errno, Attributes::kOwner, 0});
    }
  }
  if ((attributes.set & Attributes::kMode) != 0 && (known == nullptr || owner_changed || (known->st_mode & 07777) != attributes.mode)) {
    const int error = SetMode(place, attributes.mode);
    if (error != 0) errors->push_back({error, Attributes::kMode, 0});
  }
  if ((attributes.set & Attributes::kOnlyThese) != 0) RemoveOthers(place, attributes, errors);
  if ((attributes.set & Attributes::kXattrs) != 0) {
    const std::string path = ProcPath(place);
    for (size_t index = 0; index < attributes.xattrs.size(); index++) {
      const Xattr& xattr = attributes.xattrs[index];
      if (lsetxattr(path.c_str(), xattr.name.c_str(), xattr.value.data(), xattr.value.size(), 0) != 0) {
        errors->push_back({errno, Attributes::kXattrs, static_cast<uint16_t>(index)});
      }
    }
  }
  if ((attributes.set & Attributes::kTime) != 0 && (known == nullptr || !SameTime(*known, attributes))) {
    struct timespec times[2];
    FillTimes(attributes, times);
    if (utimensat(place.directory, place.name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
      errors->push_back({errno, Attributes::kTime, 0});
    }
  }
}

int GetXattrs(const Place& place, std::vector<Xattr>* xattrs) {
  const std::string path = ProcPath(place);
  std::string names;
  for (;;) {
    const ssize_t size = llistxattr(path.c_str(), nullptr, 0);
    if (size < 0) return errno == ENOTSUP ? 0 : errno;
    names.resize(static_cast<size_t>(size));
    if (size == 0) return 0;
    const ssize_t got = llistxattr(path.c_str(), &names[0], names.size());
    if (got >= 0) {
      names.resize(static_cast<size_t>(got));
      break;
    }
    if (errno != ERANGE) return errno;
  }
  for (size_t start = 0; start < names.size();) {
    const std::string name(names.c_str() + start);
    start += name.size() + 1;
    std::string value(64 * 1024, '\0');  // XATTR_SIZE_MAX
    const ssize_t size = lgetxattr(path.c_str(), name.c_str(), &value[0], value.size());
    if (size < 0) {
      if (errno == ENODATA || errno == ENOTSUP || errno == EPERM || errno == EACCES) continue;
      return errno;
    }
    value.resize(static_cast<size_t>(size));
    xattrs->push_back({name, value});
  }
  return 0;
}

}  // namespace whittle
