// Rewrites the references in old code and data as they should read at their new place: the copies of a file are
// themselves a map from old addresses to new ones.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "codec/elf_image.h"
#include "codec/known_tables.h"
#include "codec/op_model.h"

namespace whittle::codec {

/** What the new file's segments say that its copies do not: per old segment, in its order. */
struct SegmentShift {
  int64_t bias = 0;  // (new address - new offset) - (old address - old offset)
  int64_t tail = 0;  // new end of what the file holds of it - the old end, as addresses: where zero-filled memory moved
};

/** All that the new file's layout says. */
struct Shifts {
  std::vector<SegmentShift> segments;        // per old segment
  std::array<int64_t, kGoBases> go{};        // new base - old base, of each of Go's tables
  IndexRuns indexes;                         // of a module
};

/** An op of a file below 4 GiB, in half the memory: a decoder holds all of a file's. */
struct SmallOp {
  uint32_t new_position, old_position, length;
  explicit SmallOp(const Op& op)
      : new_position(static_cast<uint32_t>(op.new_position)), old_position(static_cast<uint32_t>(op.old_position)), length(static_cast<uint32_t>(op.length)) {}
  Op Whole() const { return {new_position, old_position, length}; }
};

/** Old addresses to new ones. */
class AddressMap {
 public:
  static constexpr size_t kMaxOps = size_t{1} << 18;

  /** `ops` in any order, at most kMaxOps. */
  void Build(const ElfImage& image, const Shifts& shifts, const std::vector<SmallOp>& ops);
  /** The new address of an old one; false when it lies in no segment. */
  bool Map(uint64_t address, uint64_t& mapped);
  /** Where the byte at an old offset is in the new file. */
  uint64_t MapOffset(uint64_t offset) { return offset + static_cast<uint64_t>(Shift(offset)); }
  /** The number that became of an old one of a module. */
  uint64_t MapIndex(WasmSpace space, uint64_t value) const;
  const ElfImage& image() const { return *image_; }
  int64_t NewBias(size_t segment) const;
  /** The new base of one of Go's tables. */
  uint64_t NewBase(GoBase base) const { return image_->go.base(base) + static_cast<uint64_t>(shifts_.go[static_cast<size_t>(base)]); }

 private:
  struct Interval {
    uint32_t start, end, to;
  };
  int64_t Shift(uint64_t offset);

  const ElfImage* image_ = nullptr;
  Shifts shifts_;
  std::vector<Interval> intervals_;
  size_t last_segment_ = 0, last_interval_ = 0;
};

/**
 * Where code was found to refer to in what is coded already: how far the copies' map is wrong of an old address, and of those
 * near it, as what was moved or put in moves all that is beside it.
 */
class LearnedTargets {
 public:
  /** Forgets all, and makes room for what a file of so many bytes may hold. */
  void Clear(uint64_t old_size) {
    bits_ = kFewestBits;
    while (bits_ < kMostBits && old_size >> (bits_ + 5) != 0) bits_++;
    entries_.assign(size_t{1} << bits_, Entry{});
    zones_.assign(size_t{1} << (bits_ - kZoneBits), Zone{});
  }
  /** What is to be added to the mapped address. */
  int32_t Find(uint64_t address) const {
    const Entry& entry = entries_[Slot(address)];
    if (entry.address == static_cast<uint32_t>(address)) return entry.shift;
    const Zone& zone = ZoneOf(address);
    return zone.number == Number(address) && zone.hits >= kSure ? zone.shift : 0;
  }
  /** Takes note of it, in place of what was known in its slot; false when it is what Find says. */
  bool Learn(uint64_t address, int64_t wide_shift) {
    const int32_t shift = static_cast<int32_t>(wide_shift);
    if (shift != wide_shift) return false;
    Entry& entry = entries_[Slot(address)];
    const bool is_known = entry.address == static_cast<uint32_t>(address), is_new = shift != Find(address);
    if (is_new) entry = {static_cast<uint32_t>(address), shift};
    if (!is_known || is_new) LearnZone(address, shift);
    return is_new;
  }

 private:
  static constexpr int kFewestBits = 8, kMostBits = 16, kZoneBits = 2, kZoneBytesBits = 11;
  static constexpr uint32_t kSure = 3, kMostHits = 4;
  struct Entry {
    uint32_t address = 0;
    int32_t shift = 0;
  };
  /** 2 KiB of addresses, their shift of late, and how many addresses had it. */
  struct Zone {
    uint32_t number = 0, hits = 0;
    int32_t shift = 0;
  };
  static uint32_t Number(uint64_t address) { return static_cast<uint32_t>(address) >> kZoneBytesBits; }
  size_t Slot(uint64_t address) const { return static_cast<uint32_t>(address) * 0x9e3779b1u >> (32 - bits_); }
  size_t ZoneSlot(uint64_t address) const { return Number(address) * 0x9e3779b1u >> (32 - bits_ + kZoneBits); }
  const Zone& ZoneOf(uint64_t address) const { return zones_[ZoneSlot(address)]; }

  void LearnZone(uint64_t address, int32_t shift) {
    Zone& zone = zones_[ZoneSlot(address)];
    if (zone.number != Number(address)) {
      if (shift != 0) zone = {Number(address), 1, shift};
    } else if (zone.shift == shift) {
      if (zone.hits < kMostHits) zone.hits++;
    } else if (zone.hits > 1) {
      zone.hits /= 2;
    } else {
      zone = {Number(address), 1, shift};
    }
  }

  int bits_ = kFewestBits;
  std::vector<Entry> entries_;
  std::vector<Zone> zones_;
};

/** Rewrites stretches of old bytes. */
class ReferenceRewriter {
 public:
  /** Bytes that Rewrite wants to see before and after its stretch. */
  static constexpr size_t kLead = 256;
  static constexpr size_t kTrail = 64;
  /** Bytes after a block that its models look at, rounded up. */
  static constexpr size_t kAhead = 8;
  /** Marks of bytes are less than this. */
  static constexpr size_t kMarks = 36;

  /**
   * What a reference is rewritten to: what it should read at its new place, or its mapped target wherever it stands.
   * Labels of old bytes and of new ones, the latter under a map that moves nothing, are equal where rewriting would be right;
   * short branches stay as they are in them.
   */
  enum class Form { kPlaced, kLabels };

  explicit ReferenceRewriter(AddressMap& map, Form form = Form::kPlaced) : map_(map), labels_(form == Form::kLabels) {}

  /**
   * `bytes` are the `size` old bytes from `old_offset` on, with kLead readable and writable bytes before and kTrail
   * after; they are a copy that begins at `new_offset`. `marks[i]` becomes what reference byte i is part of:
   * 0 for none, else 4 * kind + byte within it (up to 35). With `learned` (borrowed until the next call) the references
   * that code makes are only noted: Place() rewrites them. What `tables` (or null) tell outright is not looked up in the map.
   */
  void Rewrite(uint8_t* bytes, size_t size, uint64_t old_offset, uint64_t new_offset, uint8_t* marks, LearnedTargets* learned = nullptr, const KnownTables* tables = nullptr);

  /** Makes `tables` ready for the file. */
  void Begin(KnownTables& tables) { tables.Begin(map_.image(), map_); }
  /** Rewrites what is noted and begins at bytes [from, to) of the stretch or kAhead more, by what is learned so far; with 0, what begins before it too. */
  void Place(size_t from, size_t to);
  /** Learns from what the stretch's bytes before `to` became; true when references further on may read otherwise now. */
  bool Learn(const uint8_t* bytes, size_t to);

 private:
  /** A part of the stretch in one region, as indexes into bytes_. */
  struct Part {
    int64_t from, to;
    uint64_t old_base, new_base;  // address of index 0, before and after
    uint64_t section;             // address at which the region begins, before
  };
  enum Mark : uint8_t { kBranch = 1, kData = 2, kPointer = 3, kPage = 4, kFrame = 5, kLow = 6, kOffset = 7, kCallSite = 8 };

  /** How a reference is written; the number that it holds counts from an address of the new file. */
  enum class Field : uint8_t { kRelative, kBranch26, kBranch19, kBranch14, kPage, kLow, kThumb, kArm, kPointer, kOffset, kPlace, kJal, kRiscvBranch, kShortJump, kUpper, kLower };
  /** A reference of code, or of Go's tables. */
  struct Noted {
    int32_t index;
    Field field;
    uint8_t scale;     // of kLow a shift, of kOffset bytes
    Mark mark;
    int32_t page;      // of kLow: which of the noted set the page, -1 when none did
    uint64_t address;  // what it led to
    uint64_t mapped;   // where that is by the map
    uint64_t from;     // what it counts from
  };

  /** What an AUIPC of RISC-V put into a register: where it stands, as which reference it was noted (or -1), what it made, and what its new distance counts from. */
  struct Upper {
    int64_t at = INT32_MIN;  // too far back for any use
    int32_t noted = -1;
    uint64_t address = 0, from = 0;
  };

  static bool IsLong(Field field) { return field == Field::kPointer || field == Field::kPlace; }
  /** Bytes of a field that is not long, or of one half of one that is. */
  static int64_t FieldBytes(Field field) { return field == Field::kShortJump ? 2 : 4; }
  void Note(const Noted& noted);
  void Write(const Noted& noted);
  bool ReadTarget(const Noted& noted, const uint8_t* bytes, uint64_t& target) const;
  void X86(const Part& part);
  void Arm64(const Part& part);
  void Arm32(const Part& part, uint64_t old_offset);
  void Riscv(const Part& part);
  void Wasm(const Part& part, const Region& region, uint64_t old_offset);
  void RiscvJump(const Part& part, int64_t index, Field field, int64_t distance);
  bool FindLower(const Part& part, int64_t index, uint32_t upper, int64_t& lower) const;
  Upper RiscvUpper(const Part& part, int64_t index, uint32_t word);
  void RiscvLower(int64_t index, uint32_t word, const Upper& upper);
  bool ArmBranch(const Part& part, int64_t index);
  bool PoolReference(int64_t index, const PoolWord& word);
  void Pointers(const Part& part, uint64_t region_start);
  void Symbols(const Part& part, uint64_t region_start, uint64_t strings);
  bool SectionBase(uint32_t section, uint64_t& base, uint64_t& new_base);
  void Frames(const Part& part);
  void Frame(const Part& part, int64_t index, uint64_t start, uint64_t mapped);
  void FrameTable(const Part& part);
  void JumpTables(const Part& part, uint64_t old_offset);
  void Relocations(const Part& part, uint64_t region_start);
  void SectionRelocations(const Part& part, uint64_t region_start, uint64_t base);
  void SectionAddend(int64_t index);
  uint32_t NewSymbol(uint32_t symbol);
  void FunctionIndex(const Part& part, uint64_t region_start);
  void Exceptions(const Part& part, uint64_t old_offset);
  int64_t CallSite(int64_t index, int64_t limit, uint64_t function, uint64_t mapped);
  void PutNumber(int64_t index, const CallSiteNumber& old, uint64_t value);
  void GoFunctions(const Part& part);
  void GoData(const Part& part);
  void GoOffsets(const Part& part);
  void GoRecordWord(const Part& part, int64_t index, uint32_t record);
  void GoOffset(int64_t index, GoBase base, uint32_t scale = 1);
  bool GoTypeOrText(int64_t index);
  bool IsGoName(int64_t index) const;
  bool X86Relative(const Part& part, int64_t field, bool code_only, Mark mark);
  void Arm64Branch(const Part& part, int64_t index, uint32_t word, int bits, int low);
  void Arm64Page(const Part& part, int64_t index, uint32_t word);
  void Arm64Low(int64_t index, uint32_t word, uint64_t page, int scale, int32_t setter);
  void Store(int64_t index, uint32_t value, Mark mark);
  void StorePointer(int64_t index, bool is_64, uint64_t value);
  void Put(int64_t index, uint32_t value);
  void MarkField(int64_t index, Mark mark, int64_t bytes = 4);

  /** What is subtracted from a mapped target: the new address that a reference counts from, or nothing for a label. */
  uint64_t From(uint64_t address) const { return labels_ ? 0 : address; }
  /** Whether a branch so far stays in its function, and so in its label is left alone. */
  bool StaysAlone(int64_t distance) const { return labels_ && distance < kNear && distance > -kNear; }

  static constexpr int64_t kNear = 4096;

  AddressMap& map_;
  bool labels_;
  uint8_t* bytes_ = nullptr;
  uint8_t* marks_ = nullptr;
  int64_t size_ = 0;
  LearnedTargets* learned_ = nullptr;
  const KnownTables* tables_ = nullptr;
  std::vector<Noted> noted_;  // of the stretch, ascending
  size_t read_ = 0;           // how many of them were learned from
  uint64_t drift_ = 0;        // how far the map was wrong of where the last relocation is for
  uint64_t next_old_ = 0, next_new_ = 0;  // where the stretch before ends
};

/** All that rewriting one file's references takes. */
struct References {
  ElfImage image;
  Shifts shifts;
  AddressMap map;
  ReferenceRewriter rewriter{map};

  References() = default;
  References(const References&) = delete;
  References& operator=(const References&) = delete;
};

/** Whether a file of this kind and size can have its references rewritten at all. */
inline bool MayHaveReferences(uint32_t kind, uint64_t target_size, uint64_t old_size) {
  return ((kind >= kX86 && kind <= kArm32) || kind == kRiscv || kind == kWasm) && target_size < (uint64_t{1} << 32) && old_size < (uint64_t{1} << 32) && old_size > 0;
}

}  // namespace whittle::codec
