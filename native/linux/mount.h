// Mounting overlays.
#pragma once

#include <string>
#include <vector>

namespace whittle {

struct OverlayMount {
  std::string target;
  /** Absolute paths, the topmost layer first. */
  std::vector<std::string> lowers;
  /** Both empty for a read-only mount. */
  std::string upper;
  std::string work;
};

/** Mounts an overlay. Returns 0 or an errno; `detail` then has what the kernel said, when it said anything. */
int MountOverlay(const OverlayMount& mount, std::string* detail);

}  // namespace whittle
