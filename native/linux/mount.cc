#include "linux/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "linux/beneath.h"

namespace whittle {

namespace {

// The new mount calls have the same numbers on every architecture; older headers lack them.
constexpr long kSysMoveMount = 429;
constexpr long kSysFsopen = 430;
constexpr long kSysFsconfig = 431;
constexpr long kSysFsmount = 432;
constexpr unsigned kFsopenCloexec = 1;
constexpr unsigned kFsmountCloexec = 1;
constexpr unsigned kSetFlag = 0;
constexpr unsigned kSetString = 1;
constexpr unsigned kCreate = 6;
constexpr unsigned kMoveFromEmptyPath = 4;
constexpr unsigned kAttrReadOnly = 1;

int Configure(int fs, unsigned command, const char* key, const char* value) {
  return syscall(kSysFsconfig, fs, command, key, value, 0) == 0 ? 0 : errno;
}

std::string KernelSays(int fs) {
  char text[512];
  const ssize_t size = read(fs, text, sizeof text);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : std::string();
}

/** One layer per call ("lowerdir+", Linux 6.5): no bound on their paths together. */
int MountByConfig(const OverlayMount& mount, std::string* detail) {
  Fd fs(static_cast<int>(syscall(kSysFsopen, "overlay", kFsopenCloexec)));
  if (!fs) return ENOSYS;
  int error = Configure(fs.get(), kSetString, "source", "whittle");
  for (const std::string& lower : mount.lowers) {
    if (error == 0) error = Configure(fs.get(), kSetString, "lowerdir+", lower.c_str());
  }
  if (error != 0) return ENOSYS;  // An older kernel: the caller takes the older way, which reports what is truly wrong.
  const bool writable = !mount.upper.empty();
  if (writable) {
    error = Configure(fs.get(), kSetString, "upperdir", mount.upper.c_str());
    if (error == 0) error = Configure(fs.get(), kSetString, "workdir", mount.work.c_str());
  }
  if (error == 0) error = Configure(fs.get(), kCreate, nullptr, nullptr);
  if (error != 0) {
    *detail = KernelSays(fs.get());
    return error;
  }
  Fd made(static_cast<int>(syscall(kSysFsmount, fs.get(), kFsmountCloexec, writable ? 0 : kAttrReadOnly)));
  if (!made) return errno;
  return syscall(kSysMoveMount, made.get(), "", AT_FDCWD, mount.target.c_str(), kMoveFromEmptyPath) == 0 ? 0 : errno;
}

/** All options must fit a page, so layers are named by descriptor. */
int MountByOptions(const OverlayMount& mount) {
  std::vector<Fd> open_layers;
  std::string options = "lowerdir=";
  for (const std::string& lower : mount.lowers) {
    open_layers.emplace_back(open(lower.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!open_layers.back()) return errno;
    if (open_layers.size() > 1) options += ':';
    options += "/proc/self/fd/" + std::to_string(open_layers.back().get());
  }
  const bool writable = !mount.upper.empty();
  if (writable) options += ",upperdir=" + mount.upper + ",workdir=" + mount.work;
  if (options.size() >= static_cast<size_t>(sysconf(_SC_PAGESIZE))) return E2BIG;
  return ::mount("whittle", mount.target.c_str(), "overlay", writable ? 0 : MS_RDONLY, options.c_str()) == 0 ? 0 : errno;
}

}  // namespace

int MountOverlay(const OverlayMount& mount, std::string* detail) {
  const int error = MountByConfig(mount, detail);
  return error == ENOSYS ? MountByOptions(mount) : error;
}

}  // namespace whittle
