#include "codec/elf_image.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "codec/kernel_image.h"
#include "codec/number.h"

namespace whittle::codec {

namespace {

constexpr uint64_t kMaxSegments = 64;
constexpr uint64_t kMaxSections = 512;
constexpr uint64_t kMaxNameBytes = 16 * 1024;

/** Fields of both ELF classes at their offsets. */
struct Layout {
  int word;  // bytes of an address
  int ph_offset, sh_offset, ph_entry, ph_count, sh_entry, sh_count, names_index;
  int segment_flags, segment_offset, segment_address, segment_file_size, segment_memory_size, segment_bytes;
  int section_flags, section_address, section_offset, section_size, section_link, section_info, section_bytes;
};
constexpr Layout kElf64 = {8, 32, 40, 54, 56, 58, 60, 62, 4, 8, 16, 32, 40, 56, 8, 16, 24, 32, 40, 44, 64};
constexpr Layout kElf32 = {4, 28, 32, 42, 44, 46, 48, 50, 24, 4, 8, 16, 20, 32, 8, 12, 16, 20, 24, 28, 40};

struct Section {
  uint32_t name = 0, type = 0, link = 0, info = 0;
  uint64_t flags = 0, offset = 0, size = 0;
};

class Parser {
 public:
  Parser(OldContent& content, ElfImage& image) : content_(content), image_(image) {}

  bool Parse(bool with_tables) {
    content_.Fetch(0, sizeof header_, header_);
    if (IsWasm(header_)) {
      if (with_tables) ParseWasm(content_, image_);
      return true;
    }
    if (IsKernelImage(header_)) {
      ParseKernelImage(content_, header_, image_);
      return true;
    }
    if (std::memcmp(header_, "\x7f" "ELF", 4) != 0 || header_[5] != 1 || (header_[4] != 1 && header_[4] != 2)) return false;
    image_.is_64 = header_[4] == 2;
    layout_ = image_.is_64 ? kElf64 : kElf32;
    switch (Number(header_ + 18, 2)) {
      case 3: case 62: code_ = ReferenceKind::kX86Code; break;
      case 40: code_ = ReferenceKind::kArm32Code; break;
      case 183: code_ = ReferenceKind::kArm64Code; break;
      case 243: code_ = ReferenceKind::kRiscvCode; break;
      default: return false;
    }
    image_.is_riscv = code_ == ReferenceKind::kRiscvCode;
    constexpr uint32_t kRelativeX86 = 8, kRelativeArm64 = 1027, kRelativeRiscv = 3;
    if (image_.is_64) image_.relative_type = code_ == ReferenceKind::kArm64Code ? kRelativeArm64 : image_.is_riscv ? kRelativeRiscv : kRelativeX86;
    constexpr uint64_t kObject = 1;
    image_.is_object = Number(header_ + 16, 2) == kObject && content_.size() < kNoOffset;
    if (image_.is_object) image_.segments.push_back({0, 0, content_.size(), content_.size(), true});
    else ReadSegments();
    ReadSections();
    if (image_.regions.empty() && !image_.is_object) RegionsFromSegments();
    Tidy();
    if (with_tables && !image_.is_object) FindTables();
    return !image_.segments.empty();
  }

 private:
  uint64_t Address(const uint8_t* bytes) const { return Number(bytes, layout_.word); }
  /** True when a table of so many entries lies within the content. */
  bool Fits(uint64_t offset, uint64_t bytes) const { return offset <= content_.size() && bytes <= content_.size() - offset; }

  void ReadSegments() {
    const uint64_t offset = Address(header_ + layout_.ph_offset);
    const uint64_t count = std::min(Number(header_ + layout_.ph_count, 2), kMaxSegments);
    const uint64_t entry = Number(header_ + layout_.ph_entry, 2);
    if (entry < static_cast<uint64_t>(layout_.segment_bytes) || !Fits(offset, count * entry)) return;
    uint8_t bytes[64];
    for (uint64_t index = 0; index < count; index++) {
      content_.Fetch(static_cast<int64_t>(offset + index * entry), static_cast<size_t>(layout_.segment_bytes), bytes);
      if (Number(bytes, 4) != 1) continue;
      Segment segment;
      segment.address = Address(bytes + layout_.segment_address);
      segment.offset = Address(bytes + layout_.segment_offset);
      segment.file_size = Address(bytes + layout_.segment_file_size);
      segment.memory_size = std::max(segment.file_size, Address(bytes + layout_.segment_memory_size));
      segment.executable = (Number(bytes + layout_.segment_flags, 4) & 1) != 0;
      if (Fits(segment.offset, segment.file_size)) image_.segments.push_back(segment);
    }
  }

  void ReadSections() {
    const uint64_t offset = Address(header_ + layout_.sh_offset);
    const uint64_t count = std::min(Number(header_ + layout_.sh_count, 2), kMaxSections);
    const uint64_t entry = Number(header_ + layout_.sh_entry, 2);
    if (entry < static_cast<uint64_t>(layout_.section_bytes) || !Fits(offset, count * entry)) return;
    std::vector<Section> sections;
    uint8_t bytes[64];
    for (uint64_t index = 0; index < count; index++) {
      content_.Fetch(static_cast<int64_t>(offset + index * entry), static_cast<size_t>(layout_.section_bytes), bytes);
      Section section;
      section.name = static_cast<uint32_t>(Number(bytes, 4));
      section.type = static_cast<uint32_t>(Number(bytes + 4, 4));
      section.flags = Address(bytes + layout_.section_flags);
      section.offset = Address(bytes + layout_.section_offset);
      section.size = Address(bytes + layout_.section_size);
      section.link = static_cast<uint32_t>(Number(bytes + layout_.section_link, 4));
      section.info = static_cast<uint32_t>(Number(bytes + layout_.section_info, 4));
      sections.push_back(section);
    }
    ReadNames(sections, Number(header_ + layout_.names_index, 2));
    if (image_.is_object) return AddObjectSections(sections);
    GoHints hints;
    hints.word = layout_.word;
    for (const Section& section : sections) {
      AddSection(section);
      if ((section.type == 2 || section.type == 11) && !image_.regions.empty() && section.link < sections.size()) {
        NameSymbols(section, sections[section.link]);
      }
      NoteForGo(section, hints);
    }
    if (hints.section_size == 0 || !ParseGoTables(content_, hints, image_.go)) image_.go = GoTables();
  }

  /** Code, symbols and relocations of an object file; where its data refers to something, relocations say. */
  void AddObjectSections(const std::vector<Section>& sections) {
    constexpr uint32_t kNoBits = 8, kSymbols = 2;
    const uint32_t relocations = image_.is_64 ? 4 : 9;
    constexpr uint64_t kExecutable = 4;
    for (const Section& section : sections) {
      const bool has_content = section.type != kNoBits && section.offset != 0 && Fits(section.offset, section.size);
      image_.section_offsets.push_back(has_content ? static_cast<uint32_t>(section.offset) : kNoOffset);
    }
    for (size_t index = 0; index < sections.size(); index++) {
      const Section& section = sections[index];
      if (image_.section_offsets[index] == kNoOffset || section.size == 0) continue;
      if (section.type == kSymbols) {
        AddRegion(section.offset, section.size, ReferenceKind::kPointers);
        if (section.link < sections.size()) NameSymbols(section, sections[section.link]);
        image_.symbols = {section.offset, section.offset + section.size};
      } else if (section.type == relocations && section.info < sections.size() && image_.section_offsets[section.info] != kNoOffset) {
        AddRegion(section.offset, section.size, ReferenceKind::kSectionRelocations);
        image_.regions.back().base = image_.section_offsets[section.info];
      } else if (section.flags & kExecutable) {
        AddRegion(section.offset, section.size, code_);
      }
    }
    if (image_.is_64) FindSymbols();
  }

  /** Where what each symbol of an object file names is in the file. */
  void FindSymbols() {
    constexpr uint64_t kEntry = 24, kMostSymbols = uint64_t{1} << 16, kAtOnce = 1024;
    const uint64_t count = std::min((image_.symbols.end - image_.symbols.start) / kEntry, kMostSymbols);
    std::vector<uint8_t> entries(kEntry * kAtOnce);
    image_.symbol_offsets.reserve(static_cast<size_t>(count));
    for (uint64_t index = 0; index < count; index++) {
      if (index % kAtOnce == 0) content_.Fetch(static_cast<int64_t>(image_.symbols.start + index * kEntry), static_cast<size_t>(std::min(kAtOnce, count - index) * kEntry), entries.data());
      const uint8_t* const entry = entries.data() + index % kAtOnce * kEntry;
      const uint64_t section = Number(entry + 6, 2), value = Number(entry + 8, 8);
      const uint32_t base = section < image_.section_offsets.size() ? image_.section_offsets[static_cast<size_t>(section)] : kNoOffset;
      image_.symbol_offsets.push_back(base != kNoOffset && value < content_.size() - base ? static_cast<uint32_t>(base + value) : kNoOffset);
    }
  }

  /** Says of the region that was just made of a symbol table where its names are. */
  void NameSymbols(const Section& symbols, const Section& names) {
    Region& region = image_.regions.back();
    if (region.start != symbols.offset || region.kind != ReferenceKind::kPointers || !Fits(names.offset, names.size)) return;
    region.kind = ReferenceKind::kSymbols;
    region.base = names.offset;
  }

  /** Where a Go program keeps its tables. */
  void NoteForGo(const Section& section, GoHints& hints) const {
    constexpr uint32_t kProgBits = 1;
    constexpr uint64_t kWritable = 1;
    if (section.type != kProgBits || !Fits(section.offset, section.size)) return;
    const size_t segment = image_.SegmentOfOffset(section.offset);
    if (segment == kNoSegment) return;
    const uint64_t address = section.offset + (image_.segments[segment].address - image_.segments[segment].offset);
    const std::string name = Name(section.name);
    if (EndsIn(name, ".gopclntab")) {
      hints.section_offset = section.offset;
      hints.section_size = section.size;
      hints.section_address = address;
    } else if (name == ".text") {
      hints.text_address = address;
    } else if (section.flags & kWritable) {
      hints.data.push_back({section.offset, section.size});
    }
  }

  /** Names of sections may begin otherwise in position-independent executables. */
  static bool EndsIn(const std::string& name, const std::string& end) {
    return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
  }

  void ReadNames(const std::vector<Section>& sections, uint64_t index) {
    if (index >= sections.size()) return;
    const Section& section = sections[index];
    if (section.size > kMaxNameBytes || !Fits(section.offset, section.size)) return;
    names_.resize(static_cast<size_t>(section.size) + 1);
    content_.Fetch(static_cast<int64_t>(section.offset), names_.size() - 1, names_.data());
    names_.back() = 0;
  }

  std::string Name(uint32_t offset) const {
    return offset < names_.size() ? std::string(reinterpret_cast<const char*>(names_.data()) + offset) : std::string();
  }

  void AddSection(const Section& section) {
    constexpr uint32_t kProgBits = 1, kRelocations = 4, kNoBits = 8, kArmIndex = 0x70000001;
    constexpr uint64_t kWritable = 1, kExecutable = 4;
    if (section.type == 0 || section.type == kNoBits || section.size == 0 || !Fits(section.offset, section.size)) return;
    const std::string name = Name(section.name);
    ReferenceKind kind;
    if (section.flags & kExecutable) kind = code_;
    else if (name == ".eh_frame") kind = ReferenceKind::kFrames;
    else if (name == ".eh_frame_hdr") kind = ReferenceKind::kFrameTable;
    else if (EndsIn(name, ".gopclntab")) kind = ReferenceKind::kGoFunctions;
    else if (EndsIn(name, ".typelink")) kind = ReferenceKind::kGoOffsets;
    else if (EndsIn(name, ".itablink")) kind = ReferenceKind::kPointers;
    else if (name == ".gcc_except_table") kind = ReferenceKind::kExceptions;
    else if (section.type == kArmIndex && code_ == ReferenceKind::kArm32Code) kind = ReferenceKind::kFunctionIndex;
    else if (section.type == kRelocations && image_.is_64) kind = ReferenceKind::kRelocations;
    else if (name == ".rodata") kind = ReferenceKind::kReadOnlyData;
    else if (HoldsPointers(section.type) || (section.type == kProgBits && (section.flags & kWritable))) kind = ReferenceKind::kPointers;
    else return;
    const Table table = {section.offset, section.offset + section.size};
    if (kind == ReferenceKind::kFrames) image_.frames = table;
    else if (kind == ReferenceKind::kFrameTable) image_.frame_table = table;
    else if (section.type == kRelocations && image_.relocations.end == 0) image_.relocations = table;
    AddRegion(section.offset, section.size, kind);
  }

  /** Symbol tables, relocations, dynamic section, arrays of functions. */
  static bool HoldsPointers(uint32_t type) { return type == 2 || type == 4 || type == 6 || type == 9 || type == 11 || (type >= 14 && type <= 16); }

  void AddRegion(uint64_t offset, uint64_t size, ReferenceKind kind) {
    image_.regions.push_back({offset, offset + size, kind, image_.SegmentOfOffset(offset), 0});
  }

  void RegionsFromSegments() {
    for (const Segment& segment : image_.segments) {
      if (segment.file_size > 0) AddRegion(segment.offset, segment.file_size, segment.executable ? code_ : ReferenceKind::kPointers);
    }
  }

  void Tidy() {
    auto& regions = image_.regions;
    std::stable_sort(regions.begin(), regions.end(), [](const Region& a, const Region& b) { return a.start < b.start; });
    uint64_t end = 0;
    std::vector<Region> kept;
    for (Region region : regions) {
      if (region.start < end && region.kind == ReferenceKind::kSymbols) region.kind = ReferenceKind::kPointers;
      region.start = std::max(region.start, end);
      if (region.start >= region.end) continue;
      end = region.end;
      kept.push_back(region);
    }
    regions.swap(kept);
  }

  /** What only a look at all of the code, or of the frames, tells. */
  void FindTables() {
    if (code_ == ReferenceKind::kArm32Code) image_.pool_words = FindPoolWords(content_, Loaded(code_));
    const LoadedRange data = LastLoaded(ReferenceKind::kReadOnlyData);
    if ((code_ == ReferenceKind::kX86Code || image_.is_riscv) && image_.is_64 && !image_.go.found && data.end > 0) {
      image_.jump_tables = FindJumpTables(content_, Loaded(code_), data, image_.is_riscv);
    }
    image_.call_sites = FindCallSites(content_, LastLoaded(ReferenceKind::kFrames), LastLoaded(ReferenceKind::kExceptions));
  }

  /** The loaded regions of a kind. */
  std::vector<LoadedRange> Loaded(ReferenceKind kind) const {
    std::vector<LoadedRange> ranges;
    for (const Region& region : image_.regions) {
      if (region.kind == kind && region.segment != kNoSegment) ranges.push_back({region.start, region.end, image_.segments[region.segment].address - image_.segments[region.segment].offset});
    }
    return ranges;
  }

  LoadedRange LastLoaded(ReferenceKind kind) const {
    const std::vector<LoadedRange> ranges = Loaded(kind);
    return ranges.empty() ? LoadedRange() : ranges.back();
  }

  OldContent& content_;
  ElfImage& image_;
  Layout layout_ = kElf64;
  ReferenceKind code_ = ReferenceKind::kX86Code;
  uint8_t header_[kKernelHeaderBytes] = {};
  std::vector<uint8_t> names_;
};

}  // namespace

size_t ElfImage::SegmentOfOffset(uint64_t offset) const {
  for (size_t index = 0; index < segments.size(); index++) {
    if (offset >= segments[index].offset && offset - segments[index].offset < segments[index].file_size) return index;
  }
  return kNoSegment;
}

size_t ElfImage::SegmentOfAddress(uint64_t address) const {
  for (size_t index = 0; index < segments.size(); index++) {
    if (address >= segments[index].address && address - segments[index].address < segments[index].memory_size) return index;
  }
  return kNoSegment;
}

bool ParseElf(OldContent& content, ElfImage& image, bool with_tables) { return Parser(content, image).Parse(with_tables); }

}  // namespace whittle::codec
