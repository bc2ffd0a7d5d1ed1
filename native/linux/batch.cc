#include "linux/batch.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "linux/attributes.h"
#include "linux/beneath.h"
#include "linux/files.h"
#include "linux/wire.h"

namespace whittle {

namespace {

enum Step : uint8_t {
  kMkdir = 1, kRmdir, kUnlink, kRename, kLink, kSymlink, kMknod, kPutFile, kSetAttributes, kOpen, kStat, kReaddir,
  kReadlink, kXattrs, kReadFile, kFsyncDir, kClone, kCopy, kSpace, kDropCache, kLookAndReadFile,
};
constexpr uint8_t kGoOn = 0x80;

class Batch {
 public:
  Batch(int root, bool walk_only, const uint8_t* commands, size_t size, WireWriter* out) : in_(commands, size), out_(*out), parents_(root, walk_only) {}

  void Run() {
    while (!in_.AtEnd()) {
      const uint8_t head = in_.U8();
      // What the step answers comes right behind, where it stays: contents are long.
      const size_t start = out_.size();
      out_.I32(0);
      out_.U32(0);
      const size_t payload = out_.size();
      const int error = RunStep(head & ~kGoOn);
      if (error != 0) out_.Truncate(payload);
      out_.PutU32(start, static_cast<uint32_t>(error));
      out_.PutU32(start + 4, static_cast<uint32_t>(out_.size() - payload));
      if (error != 0 && (head & kGoOn) == 0) break;
    }
  }

 private:
  int RunStep(uint8_t step) {
    switch (step) {
      case kMkdir: return Mkdir();
      case kRmdir: return Rmdir();
      case kUnlink: return Unlink();
      case kRename: return Rename();
      case kLink: return Link();
      case kSymlink: return Symlink();
      case kMknod: return Mknod();
      case kPutFile: return PutFile();
      case kSetAttributes: return SetAttributesOf();
      case kOpen: return Open();
      case kStat: return Stat();
      case kReaddir: return Readdir();
      case kReadlink: return Readlink();
      case kXattrs: return Xattrs();
      case kReadFile: return ReadFile(false);
      case kLookAndReadFile: return ReadFile(true);
      case kFsyncDir: return FsyncDir();
      case kClone: return MakeFrom(CloneInto);
      case kCopy: return MakeFrom(CopyInto);
      case kSpace: return Space();
      case kDropCache: return DropCache();
      default: throw std::runtime_error("batch: unknown step " + std::to_string(step));
    }
  }

  Attributes ReadAttributes() {
    Attributes attributes;
    attributes.set = in_.U8();
    attributes.uid = in_.U32();
    attributes.gid = in_.U32();
    attributes.mode = in_.U32();
    attributes.mtime_sec = in_.I64();
    attributes.mtime_nsec = in_.U32();
    const uint16_t count = in_.U16();
    for (uint16_t index = 0; index < count; index++) {
      std::string name = in_.String();
      attributes.xattrs.push_back({std::move(name), in_.String()});
    }
    return attributes;
  }

  int FinishAttributes(const Place& place, const Attributes& attributes, const struct stat* known, bool kept) {
    std::vector<AttributeError> errors;
    SetAttributes(place, attributes, known, &errors);
    PutAttributeErrors(errors, kept);
    return 0;
  }

  void PutAttributeErrors(const std::vector<AttributeError>& errors, bool kept) {
    out_.U8(kept ? 1 : 0);
    for (const AttributeError& error : errors) {
      out_.I32(error.error);
      out_.U8(error.what);
      out_.U16(error.index);
    }
  }

  int Mkdir() {
    const std::string path = in_.String();
    const mode_t mode = in_.U32();
    const bool exist_ok = in_.U8() != 0;
    Place place;
    const int error = parents_.Find(path, &place);
    if (error != 0) return error;
    if (mkdirat(place.directory, place.name.c_str(), 0700) != 0) {
      if (errno != EEXIST || !exist_ok) return errno;
      struct stat st;
      if (fstatat(place.directory, place.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
      return S_ISDIR(st.st_mode) ? 0 : EEXIST;
    }
    // The mode given to mkdirat would pass through the process's umask.
    Attributes attributes;
    attributes.set = Attributes::kMode;
    attributes.mode = mode;
    std::vector<AttributeError> errors;
    if (mode != 0700) SetAttributes(place, attributes, nullptr, &errors);
    return errors.empty() ? 0 : errors[0].error;
  }

  int Rmdir() {
    Place place;
    const int error = parents_.Find(in_.String(), &place);
    if (error != 0) return error;
    if (unlinkat(place.directory, place.name.c_str(), AT_REMOVEDIR) != 0) return errno;
    parents_.Clear();
    return 0;
  }

  int Unlink() {
    Place place;
    const int error = parents_.Find(in_.String(), &place);
    if (error != 0) return error;
    return unlinkat(place.directory, place.name.c_str(), 0) == 0 ? 0 : errno;
  }

  int Rename() {
    const std::string from = in_.String();
    const std::string to = in_.String();
    const uint32_t flags = in_.U32();
    Place source, target;
    int error = parents_.FindBoth(from, &source, to, &target);
    if (error != 0) return error;
    error = RenameAt(source, target, flags);
    parents_.Clear();
    return error;
  }

  int Link() {
    const std::string from = in_.String();
    const std::string to = in_.String();
    Place source, target;
    const int error = parents_.FindBoth(from, &source, to, &target);
    if (error != 0) return error;
    return linkat(source.directory, source.name.c_str(), target.directory, target.name.c_str(), 0) == 0 ? 0 : errno;
  }

  int Symlink() {
    const std::string path = in_.String();
    const std::string target = in_.String();
    const Attributes attributes = ReadAttributes();
    Place place;
    const int error = parents_.Find(path, &place);
    if (error != 0) return error;
    if (target.find('\0') != std::string::npos) return EINVAL;
    if (symlinkat(target.c_str(), place.directory, place.name.c_str()) != 0) return errno;
    return FinishAttributes(place, attributes, nullptr, false);
  }

  int Mknod() {
    const std::string path = in_.String();
    const uint8_t kind = in_.U8();
    const uint32_t device_major = in_.U32();
    const uint32_t device_minor = in_.U32();
    const Attributes attributes = ReadAttributes();
    const mode_t type = kind == 'c' ? S_IFCHR : kind == 'b' ? S_IFBLK : S_IFIFO;
    Place place;
    const int error = parents_.Find(path, &place);
    if (error != 0) return error;
    const dev_t device = kind == 'p' ? 0 : makedev(device_major, device_minor);
    if (mknodat(place.directory, place.name.c_str(), type | 0600, device) != 0) return errno;
    return FinishAttributes(place, attributes, nullptr, false);
  }

  int PutFile() {
    const std::string path = in_.String();
    const bool reuse = in_.U8() != 0;
    const Attributes attributes = ReadAttributes();
    size_t size = 0;
    const uint8_t* content = in_.Bytes(&size);
    Place place;
    int error = parents_.Find(path, &place);
    if (error != 0) return error;
    if (reuse) {
      struct stat st;
      if (IsSameFile(place, content, size, &st)) return FinishAttributes(place, attributes, &st, true);
      if (unlinkat(place.directory, place.name.c_str(), 0) != 0 && errno != ENOENT) return errno;
    }
    std::vector<AttributeError> errors;
    error = WriteNewFile(place, content, size, attributes, &errors);
    if (error == 0) PutAttributeErrors(errors, false);
    return error;
  }

  int SetAttributesOf() {
    const std::string path = in_.String();
    const Attributes attributes = ReadAttributes();
    Place place;
    const int error = parents_.Find(path, &place);
    if (error != 0) return error;
    struct stat st;
    if (fstatat(place.directory, place.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
    return FinishAttributes(place, attributes, &st, false);
  }

  int Open() {
    const std::string path = in_.String();
    const auto how = static_cast<OpenHow>(in_.U8());
    const mode_t mode = in_.U32();
    Fd fd;
    const int error = OpenFile(&parents_, path, how, mode, &fd);
    if (error == 0) out_.I32(fd.release());
    return error;
  }

  void PutStat(const struct stat& st) {
    out_.U8(KindOf(st.st_mode));
    out_.U32(st.st_mode & 07777);
    out_.U32(st.st_uid);
    out_.U32(st.st_gid);
    out_.U64(static_cast<uint64_t>(st.st_size));
    out_.U64(static_cast<uint64_t>(st.st_blocks) * 512);
    out_.U32(static_cast<uint32_t>(st.st_nlink));
    out_.U64(static_cast<uint64_t>(st.st_dev));
    out_.U64(static_cast<uint64_t>(st.st_ino));
    out_.I64(st.st_mtim.tv_sec);
    out_.U32(static_cast<uint32_t>(st.st_mtim.tv_nsec));
    out_.I64(static_cast<int64_t>(st.st_ctim.tv_sec) * 1000000000 + st.st_ctim.tv_nsec);
    out_.U32(major(st.st_rdev));
    out_.U32(minor(st.st_rdev));
  }

  int Stat() {
    Place place;
    const int error = parents_.Find(in_.String(), &place);
    if (error != 0) return error;
    struct stat st;
    if (fstatat(place.directory, place.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
    PutStat(st);
    return 0;
  }

  int Readdir() {
    std::vector<NamedKind> entries;
    const int error = ListDirectory(&parents_, in_.String(), &entries);
    for (const NamedKind& entry : entries) {
      out_.U8(entry.kind);
      out_.String(entry.name);
    }
    return error;
  }

  int Readlink() {
    Place place;
    const int error = parents_.Find(in_.String(), &place);
    if (error != 0) return error;
    char target[PATH_MAX];  // The kernel's own bound, its zero byte included.
    const ssize_t size = readlinkat(place.directory, place.name.c_str(), target, sizeof target);
    if (size < 0) return errno;
    out_.Raw(target, static_cast<size_t>(size));
    return 0;
  }

  int Xattrs() {
    Place place;
    int error = parents_.Find(in_.String(), &place);
    std::vector<Xattr> xattrs;
    if (error == 0) error = GetXattrs(place, &xattrs);
    for (const Xattr& xattr : xattrs) {
      out_.String(xattr.name);
      out_.String(xattr.value);
    }
    return error;
  }

  int ReadFile(bool with_stat) {
    const std::string path = in_.String();
    const uint64_t max_bytes = in_.U64();
    Fd fd;
    struct stat st;
    const int error = OpenWhole(&parents_, path, max_bytes, &fd, &st);
    if (error != 0) return error;
    if (with_stat) PutStat(st);
    return ReadInto(fd.get(), static_cast<size_t>(st.st_size), &out_);
  }

  int FsyncDir() {
    Fd fd(parents_.Open(in_.String(), O_RDONLY | O_DIRECTORY));
    if (!fd) return errno;
    return fsync(fd.get()) == 0 ? 0 : errno;
  }

  int MakeFrom(int (*fill)(int from, int to)) {
    const std::string from = in_.String();
    const std::string to = in_.String();
    const mode_t mode = in_.U32();
    Fd source, target;
    int error = OpenFile(&parents_, from, OpenHow::kRead, 0, &source);
    if (error == 0) error = OpenFile(&parents_, to, OpenHow::kCreate, mode, &target);
    if (error != 0) return error;
    error = fill(source.get(), target.get());
    if (close(target.release()) != 0 && error == 0) error = errno;
    Place place;
    if (error != 0 && parents_.Find(to, &place) == 0) unlinkat(place.directory, place.name.c_str(), 0);
    return error;
  }

  int Space() {
    Fd fd(parents_.Open("", O_RDONLY | O_DIRECTORY));
    struct statfs fs;
    struct statvfs vfs;
    if (!fd || fstatfs(fd.get(), &fs) != 0 || fstatvfs(fd.get(), &vfs) != 0) return errno;
    out_.U64(static_cast<uint64_t>(vfs.f_blocks) * vfs.f_frsize);
    out_.U64(static_cast<uint64_t>(vfs.f_bavail) * vfs.f_frsize);
    out_.U32(static_cast<uint32_t>(fs.f_type));
    out_.U8((vfs.f_flag & ST_RDONLY) != 0 ? 1 : 0);
    return 0;
  }

  int DropCache() {
    Fd fd;
    const int error = OpenFile(&parents_, in_.String(), OpenHow::kRead, 0, &fd);
    return error != 0 ? error : posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  WireReader in_;
  WireWriter& out_;
  ParentCache parents_;
};

}  // namespace

void RunBatch(int root, bool walk_only, const uint8_t* commands, size_t size, WireWriter* out) {
  Batch(root, walk_only, commands, size, out).Run();
}

}  // namespace whittle
