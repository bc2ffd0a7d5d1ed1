// Work on single files that batches are made of. Every function returns 0 or an errno.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "linux/attributes.h"
#include "linux/beneath.h"
#include "linux/wire.h"

namespace whittle {

enum class OpenHow : uint8_t { kRead = 0, kCreate = 1, kUpdate = 2, kOpenOrCreate = 3, kDirectory = 4 };

struct NamedKind {
  std::string name;
  uint8_t kind;
};

/** One letter for a file's type: f d l c b p s. */
uint8_t KindOf(mode_t mode);

/**
 * Opens a regular file (or a directory), never a link and never a device: ELOOP, EISDIR, ENXIO. Created files have `mode` whatever the umask.
 * `looked` (may be null) is what a file that was there looked like before it was opened.
 */
int OpenFile(ParentCache* parents, const std::string& path, OpenHow how, mode_t mode, Fd* fd, struct stat* looked = nullptr);

/** Whether a regular file with one link and just these bytes is there. */
bool IsSameFile(const Place& place, const uint8_t* content, size_t size, struct stat* st);

/** Makes a new file with these bytes and attributes and reports what close reports. Leaves nothing when it fails. */
int WriteNewFile(const Place& place, const uint8_t* content, size_t size, const Attributes& attributes, std::vector<AttributeError>* errors);

/** renameat2 with `flags`, or renameat where the flags are 0. */
int RenameAt(const Place& from, const Place& to, uint32_t flags);

int ListDirectory(ParentCache* parents, const std::string& path, std::vector<NamedKind>* entries);

/** Opens a regular file to read all of it; EFBIG above `max_bytes`. `looked` as for OpenFile. */
int OpenWhole(ParentCache* parents, const std::string& path, uint64_t max_bytes, Fd* fd, struct stat* looked);

/** Puts the first `size` bytes of a file into `out`, or as many as it has. */
int ReadInto(int fd, size_t size, WireWriter* out);

/** Shares the blocks of `from` with `to`. */
int CloneInto(int from, int to);
/** Copies data and keeps holes. */
int CopyInto(int from, int to);

}  // namespace whittle
