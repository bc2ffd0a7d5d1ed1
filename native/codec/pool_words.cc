#include "codec/pool_words.h"

#include <algorithm>
#include <array>

#include "codec/number.h"

namespace whittle::codec {

namespace {

constexpr size_t kMostWords = size_t{1} << 17;
constexpr size_t kChunk = 32 * 1024;
/** How far behind a load its value is used. */
constexpr uint64_t kReach = 256;

/** Follows the instructions of a range, which may be of four bytes or of two. */
class Finder {
 public:
  Finder(const LoadedRange& range, std::vector<PoolWord>& found) : range_(range), found_(found) {}

  /** The word at an offset that is a multiple of 4. */
  void Arm(uint64_t offset, uint32_t word) {
    const uint64_t place = offset + range_.bias;
    if ((word & 0x0f7f0000) == 0x051f0000) {
      const uint64_t distance = word & 0xfff;
      Load(arm_[(word >> 12) & 15], offset, place + 8 + (word & 0x00800000 ? distance : uint64_t{0} - distance));
    } else if ((word & 0x0fff0ff0) == 0x008f0000 || (word & 0x0fff0ff0) == 0x079f0000) {
      Use(arm_[word & 15], offset, 8);
    } else if ((word & 0x0ff00fff) == 0x0080000f) {
      Use(arm_[(word >> 16) & 15], offset, 8);
    }
  }

  /** The half at an offset that is even, and the one after it. */
  void Thumb(uint64_t offset, uint32_t half, uint32_t after) {
    const uint64_t place = ((offset + range_.bias) & ~uint64_t{3}) + 4;
    if ((half & 0xf800) == 0x4800) {
      Load(thumb_[(half >> 8) & 7], offset, place + (half & 255) * 4);
    } else if ((half & 0xff7f) == 0xf85f) {
      const uint64_t distance = after & 0xfff;
      Load(thumb_[after >> 12], offset, place + (half & 0x80 ? distance : uint64_t{0} - distance));
    } else if ((half & 0xff78) == 0x4478) {
      Use(thumb_[(half & 7) | ((half >> 4) & 8)], offset, 4);
    }
  }

 private:
  /** What a register was loaded from: a file offset, or 0. */
  struct Loaded {
    uint64_t at = 0, offset = 0;
  };

  void Load(Loaded& loaded, uint64_t at, uint64_t address) {
    const uint64_t offset = address - range_.bias;
    const bool is_word = offset >= range_.start && offset < range_.end && range_.end - offset >= 4 && (offset & 3) == 0;
    loaded = {at, is_word ? offset : 0};
  }

  void Use(Loaded& loaded, uint64_t at, uint8_t ahead) {
    const uint64_t user = at + range_.bias;
    if (loaded.offset != 0 && at - loaded.at <= kReach && found_.size() < kMostWords && user <= UINT32_MAX) {
      found_.push_back({static_cast<uint32_t>(loaded.offset), static_cast<uint32_t>(user), ahead});
    }
    loaded = {};
  }

  const LoadedRange& range_;
  std::vector<PoolWord>& found_;
  std::array<Loaded, 16> arm_, thumb_;
};

}  // namespace

std::vector<PoolWord> FindPoolWords(OldContent& content, const std::vector<LoadedRange>& code) {
  std::vector<PoolWord> found;
  std::vector<uint8_t> bytes(kChunk + 4);
  for (const LoadedRange& range : code) {
    if (range.end > UINT32_MAX) continue;
    Finder finder(range, found);
    for (uint64_t at = (range.start + 3) & ~uint64_t{3}; at < range.end; at += kChunk) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, range.end - at));
      content.Fetch(static_cast<int64_t>(at), size + 4, bytes.data());
      for (size_t index = 0; index + 2 <= size; index += 2) {
        const uint32_t word = Load(&bytes[index]);
        if ((index & 3) == 0) finder.Arm(at + index, word);
        finder.Thumb(at + index, word & 0xffff, word >> 16);
      }
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const PoolWord& a, const PoolWord& b) { return a.offset < b.offset; });
  found.erase(std::unique(found.begin(), found.end(), [](const PoolWord& a, const PoolWord& b) { return a.offset == b.offset; }), found.end());
  return found;
}

}  // namespace whittle::codec
