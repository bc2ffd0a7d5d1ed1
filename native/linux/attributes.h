// Owner, mode, time and extended attributes of one file, set without following links.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "linux/beneath.h"

namespace whittle {

struct Xattr {
  std::string name;
  std::string value;
};

/** What to set; bits of `set` say which. */
struct Attributes {
  static constexpr uint8_t kOwner = 1;
  static constexpr uint8_t kMode = 2;
  static constexpr uint8_t kTime = 4;
  static constexpr uint8_t kXattrs = 8;
  /** Extended attributes that are not listed are removed. */
  static constexpr uint8_t kOnlyThese = 16;
  uint8_t set = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t mode = 0;
  int64_t mtime_sec = 0;
  uint32_t mtime_nsec = 0;
  std::vector<Xattr> xattrs;
};

/** An attribute that the system refused. `what` is one of the bits above; `index` counts xattrs. */
struct AttributeError {
  int32_t error;
  uint8_t what;
  uint16_t index;
};

/**
 * Sets attributes in the order owner, mode, xattrs, time: chown clears set-id bits and capabilities, and all others
 * leave the modification time alone. What `known` (may be null) shows to be so already is not set again.
 */
void SetAttributes(const Place& place, const Attributes& attributes, const struct stat* known, std::vector<AttributeError>* errors);

/** The same on an open file that is new, so that nothing has to be removed from it. */
void SetAttributesOfOpen(int fd, const Attributes& attributes, std::vector<AttributeError>* errors);

/** All extended attributes readable at `place`; a filesystem without them has none. Returns 0 or an errno. */
int GetXattrs(const Place& place, std::vector<Xattr>* xattrs);

}  // namespace whittle
