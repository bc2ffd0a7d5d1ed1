// Tables of the new file that were coded already, and which say outright what later ones hold: a relocation the word that it
// is for, the table of frames where each frame's function is, and frames what their table lists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "codec/elf_image.h"

namespace whittle::codec {

class AddressMap;

/** Reads tables as the file's bytes come by. Addresses are those of the new file, below 4 GiB. */
class KnownTables {
 public:
  /** Entries of each table; what comes after says nothing. */
  static constexpr size_t kMost = size_t{1} << 17;

  /** Forgets all, and finds where the tables of an old file are in the new one. `map` is borrowed for this call only. */
  void Begin(const ElfImage& old, AddressMap& map);
  /** The next bytes of the file, from `position` on. All of them must be given, in order. */
  void Take(uint64_t position, const uint8_t* bytes, size_t size);

  /** How many of the `size` bytes from `position` on may be taken before a table is complete; at least one. */
  size_t BeforeEnd(uint64_t position, size_t size) const;

  /** What a relocation puts at an address, from the entry `hint` on, which becomes the next one; false when none is known. */
  bool Relocated(uint64_t address, size_t& hint, uint64_t& value) const;
  /** Where the function of the frame at an address is, and that of the next frame (0: none); false when the table did not come before. */
  bool FunctionOf(uint64_t frame, uint64_t& function, uint64_t& next) const;
  /** The function and the frame of an entry of the table of frames; false when the frames did not come before. */
  bool FrameEntry(uint64_t index, uint64_t& function, uint64_t& frame) const;

 private:
  using Pair = std::pair<uint32_t, uint32_t>;

  /** Cuts a stretch of the file into records, each of `need` bytes and followed by `skip` that are passed over. */
  struct Reader {
    uint64_t at = 0, end = 0, address = 0;  // of the next byte wanted; what is added to a position to make an address
    uint64_t skip = 0;
    size_t need = 0, have = 0;
    uint8_t record[24] = {};
  };

  Reader Find(const Table& table, size_t need, const ElfImage& old, AddressMap& map);
  static void Reserve(std::vector<Pair>& pairs, const Reader& reader, uint64_t entry);
  template <class Use>
  static void Feed(Reader& reader, uint64_t position, const uint8_t* bytes, size_t size, const Use& use);
  void TakeRelocation(const uint8_t* record);
  void TakeFrameEntry(const uint8_t* record);
  void TakeFrame(uint64_t place, const uint8_t* record);

  Reader relocation_reader_, frame_reader_;
  bool table_first_ = false;  // of frames
  uint32_t relative_type_ = 0;
  uint64_t table_address_ = 0;
  bool has_frames_ = false;  // all of them, in their order
  std::vector<Pair> relocations_;  // place, addend; ascending
  std::vector<Pair> frames_;       // frame, function if the table came first; else function, frame
};

}  // namespace whittle::codec
