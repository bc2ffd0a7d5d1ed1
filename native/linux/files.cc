#include "linux/files.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

namespace whittle {

namespace {

constexpr unsigned long kFiClone = _IOW(0x94, 9, int);
constexpr size_t kCopyBytes = 128 * 1024;

int WriteAll(int fd, const uint8_t* data, size_t size, off_t offset) {
  while (size > 0) {
    const ssize_t count = pwrite(fd, data, size, offset);
    if (count < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    if (count == 0) return ENOSPC;
    data += count;
    offset += count;
    size -= static_cast<size_t>(count);
  }
  return 0;
}

/** Reads until `size` bytes are there or the file ends. Returns the count, or -1 with errno set. */
ssize_t ReadFull(int fd, uint8_t* data, size_t size, off_t offset) {
  size_t done = 0;
  while (done < size) {
    const ssize_t count = pread(fd, data + done, size - done, offset + static_cast<off_t>(done));
    if (count < 0) {
      if (errno == EINTR) continue;
      return -1;
    }
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return static_cast<ssize_t>(done);
}

int CopyByReading(int from, int to, off_t start, off_t end) {
  std::unique_ptr<uint8_t[]> buffer(new uint8_t[kCopyBytes]);
  while (start < end) {
    const ssize_t count = ReadFull(from, buffer.get(), static_cast<size_t>(std::min<off_t>(end - start, kCopyBytes)), start);
    if (count < 0) return errno;
    if (count == 0) return EIO;
    const int error = WriteAll(to, buffer.get(), static_cast<size_t>(count), start);
    if (error != 0) return error;
    start += count;
  }
  return 0;
}

int CopyStretch(int from, int to, off_t start, off_t end) {
#ifdef __NR_copy_file_range
  while (start < end) {
    loff_t in = start, out = start;
    const ssize_t count = syscall(__NR_copy_file_range, from, &in, to, &out, static_cast<size_t>(std::min<off_t>(end - start, off_t{1} << 30)), 0u);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT)) return errno;
    if (count <= 0) break;  // Not supported here, between these files, or for this file: copy by hand.
    start += count;
  }
#endif
  return CopyByReading(from, to, start, end);
}

int OpenFlags(OpenHow how) {
  switch (how) {
    case OpenHow::kRead: return O_RDONLY | O_NONBLOCK;
    case OpenHow::kCreate: return O_RDWR | O_CREAT | O_EXCL;
    case OpenHow::kUpdate: return O_RDWR | O_NONBLOCK;
    case OpenHow::kOpenOrCreate: return O_RDWR | O_CREAT | O_NONBLOCK;
    case OpenHow::kDirectory: return O_RDONLY | O_DIRECTORY;
  }
  return -1;
}

}  // namespace

uint8_t KindOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return 'f';
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    case S_IFIFO: return 'p';
    default: return 's';
  }
}

int OpenFile(ParentCache* parents, const std::string& path, OpenHow how, mode_t mode, Fd* fd, struct stat* looked) {
  const int flags = OpenFlags(how);
  if (flags < 0) return EINVAL;
  if (how == OpenHow::kDirectory) {
    *fd = Fd(parents->Open(path, flags));
    return *fd ? 0 : errno;
  }
  Place place;
  const int error = parents->Find(path, &place);
  if (error != 0) return error;
  struct stat st;
  if (how != OpenHow::kCreate) {
    // Looked at first: opening a device or a pipe can have effects.
    if (fstatat(place.directory, place.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
      if (S_ISLNK(st.st_mode)) return ELOOP;
      if (S_ISDIR(st.st_mode)) return EISDIR;
      if (!S_ISREG(st.st_mode)) return ENXIO;
      if (looked != nullptr) *looked = st;
    } else if (errno != ENOENT || how != OpenHow::kOpenOrCreate) {
      return errno;
    }
  }
  *fd = Fd(openat(place.directory, place.name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!*fd) return errno;
  if (how == OpenHow::kCreate && mode != 0600 && fchmod(fd->get(), mode) != 0) return errno;
  return 0;
}

bool IsSameFile(const Place& place, const uint8_t* content, size_t size, struct stat* st) {
  // More than one link: other names, perhaps of a committed layer, would share what is set on it.
  if (fstatat(place.directory, place.name.c_str(), st, AT_SYMLINK_NOFOLLOW) != 0) return false;
  if (!S_ISREG(st->st_mode) || st->st_nlink != 1 || static_cast<uint64_t>(st->st_size) != size) return false;
  Fd fd(openat(place.directory, place.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return false;
  std::unique_ptr<uint8_t[]> buffer(new uint8_t[std::min(size, kCopyBytes) + 1]);
  for (size_t offset = 0; offset < size;) {
    const size_t wanted = std::min(size - offset, kCopyBytes);
    if (ReadFull(fd.get(), buffer.get(), wanted, static_cast<off_t>(offset)) != static_cast<ssize_t>(wanted)) return false;
    if (memcmp(buffer.get(), content + offset, wanted) != 0) return false;
    offset += wanted;
  }
  return true;
}

int WriteNewFile(const Place& place, const uint8_t* content, size_t size, const Attributes& attributes, std::vector<AttributeError>* errors) {
  Fd fd(openat(place.directory, place.name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return errno;
  int error = WriteAll(fd.get(), content, size, 0);
  // By the descriptor at hand: finding the file again by its name, once for each attribute, takes several times as many calls.
  const bool by_name = (attributes.set & Attributes::kOnlyThese) != 0;
  if (error == 0 && !by_name) SetAttributesOfOpen(fd.get(), attributes, errors);
  if (close(fd.release()) != 0 && error == 0) error = errno;
  if (error != 0) unlinkat(place.directory, place.name.c_str(), 0);
  else if (by_name) SetAttributes(place, attributes, nullptr, errors);
  return error;
}

int RenameAt(const Place& from, const Place& to, uint32_t flags) {
  if (flags == 0) return renameat(from.directory, from.name.c_str(), to.directory, to.name.c_str()) == 0 ? 0 : errno;
#ifdef __NR_renameat2
  return syscall(__NR_renameat2, from.directory, from.name.c_str(), to.directory, to.name.c_str(), flags) == 0 ? 0 : errno;
#else
  return EINVAL;
#endif
}

int ListDirectory(ParentCache* parents, const std::string& path, std::vector<NamedKind>* entries) {
  Fd fd(parents->Open(path, O_RDONLY | O_DIRECTORY));
  if (!fd) return errno;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(fdopendir(fd.get()), closedir);
  if (!directory) return errno;
  fd.release();
  for (;;) {
    errno = 0;
    const struct dirent* entry = readdir(directory.get());
    if (entry == nullptr) return errno;
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    mode_t type = DTTOIF(entry->d_type);
    if (entry->d_type == DT_UNKNOWN) {
      struct stat st;
      if (fstatat(dirfd(directory.get()), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;
        return errno;
      }
      type = st.st_mode;
    }
    entries->push_back({name, KindOf(type)});
  }
}

int OpenWhole(ParentCache* parents, const std::string& path, uint64_t max_bytes, Fd* fd, struct stat* looked) {
  const int error = OpenFile(parents, path, OpenHow::kRead, 0, fd, looked);
  if (error != 0) return error;
  // A result is counted in 32 bits, and so is memory on many a device.
  return static_cast<uint64_t>(looked->st_size) > std::min<uint64_t>(max_bytes, INT32_MAX) ? EFBIG : 0;
}

int ReadInto(int fd, size_t size, WireWriter* out) {
  const size_t start = out->size();
  const ssize_t count = ReadFull(fd, out->Extend(size), size, 0);
  if (count < 0) return errno;
  out->Truncate(start + static_cast<size_t>(count));
  return 0;
}

int CloneInto(int from, int to) { return ioctl(to, kFiClone, from) == 0 ? 0 : errno; }

int CopyInto(int from, int to) {
  struct stat st;
  if (fstat(from, &st) != 0) return errno;
  if (ftruncate(to, st.st_size) != 0) return errno;
  for (off_t start = 0; start < st.st_size;) {
    const off_t data = lseek(from, start, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // Only a hole is left.
    const off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    const off_t begin = data < 0 ? start : data;
    const off_t end = hole < 0 ? st.st_size : hole;
    const int error = CopyStretch(from, to, begin, end);
    if (error != 0) return error;
    start = end;
  }
  return 0;
}

}  // namespace whittle
