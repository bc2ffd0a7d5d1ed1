#include "codec/wasm_image.h"

#include <algorithm>
#include <cstring>

#include "codec/elf_image.h"
#include "codec/number.h"
#include "codec/old_content.h"

namespace whittle::codec {

namespace {

constexpr size_t kMaxRegions = size_t{1} << 15;
constexpr uint64_t kLeastAddress = 64, kLeastOffset = 256, kAddressEnd = uint64_t{1} << 31;

/** A position in an instruction; what goes past the end sets `ok` to false, for good. */
struct Cursor {
  const uint8_t* bytes;
  size_t size, at = 0;
  bool ok = true;

  void Skip(uint64_t count) {
    ok &= count <= size - at;
    if (ok) at += static_cast<size_t>(count);
  }
  uint8_t Byte() {
    Skip(1);
    return ok ? bytes[at - 1] : 0;
  }
  /** A number of any length up to ten bytes. */
  uint64_t Leb() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70 && ok; shift += 7) {
      const uint8_t byte = Byte();
      if (shift < 64) value |= uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    ok = false;
    return 0;
  }
  void SkipLebs(uint64_t count) {
    for (uint64_t number = 0; number < count && ok; number++) Leb();
  }
  /** The number here, as one of a space, if it is not out of its range. */
  void Take(WasmSpace space, WasmForm form, uint64_t least, WasmField& field) {
    const size_t start = at;
    Leb();
    uint64_t value;
    if (!ok || at - start > 5 || !ReadWasmNumber(bytes + start, form, at - start, value) || value < least || value >= kAddressEnd) return;
    field = {space, form, static_cast<uint8_t>(at - start), static_cast<int64_t>(start), value};
  }
  void BlockType(WasmField& field) { Take(WasmSpace::kTypes, WasmForm::kSigned, 0, field); }
  void Memory(WasmField& field) {
    constexpr uint64_t kHasIndex = 64;
    if ((Leb() & kHasIndex) != 0) Leb();
    Take(WasmSpace::kAddresses, WasmForm::kUnsigned, kLeastOffset, field);
  }
};

/** What follows FC, FD and FE. */
void StepPrefixed(Cursor& cursor, uint8_t prefix, WasmField& field) {
  const uint64_t code = cursor.Leb();
  if (prefix == 0xfc) {
    if (code == 8 || code == 10 || code == 12 || code == 14) cursor.SkipLebs(2);
    else if (code >= 9 && code <= 17) cursor.Leb();
    else if (code > 17) cursor.ok = false;
  } else if (prefix == 0xfd) {
    if (code < 12 || code == 92 || code == 93) cursor.Memory(field);
    else if (code == 12 || code == 13) cursor.Skip(16);
    else if (code >= 21 && code <= 34) cursor.Skip(1);
    else if (code >= 84 && code <= 91) {
      cursor.Memory(field);
      cursor.Skip(1);
    }
  } else if (code == 3) {
    cursor.Skip(1);
  } else {
    cursor.Memory(field);
  }
}

void StepCatches(Cursor& cursor) {
  const uint64_t count = cursor.Leb();
  for (uint64_t number = 0; number < count && cursor.ok; number++) cursor.SkipLebs(cursor.Byte() < 2 ? 2 : 1);
}

/** Instructions whose numbers are not memory's. */
void StepPlain(Cursor& cursor, uint8_t code, WasmField& field) {
  switch (code) {
    case 0x02: case 0x03: case 0x04: case 0x06: return cursor.BlockType(field);
    case 0x1f: cursor.BlockType(field); return StepCatches(cursor);
    case 0x10: case 0x12: case 0xd2: return cursor.Take(WasmSpace::kFunctions, WasmForm::kUnsigned, 0, field);
    case 0x11: case 0x13: cursor.Take(WasmSpace::kTypes, WasmForm::kUnsigned, 0, field); return cursor.SkipLebs(1);
    case 0x14: case 0x15: return cursor.Take(WasmSpace::kTypes, WasmForm::kUnsigned, 0, field);
    case 0x23: case 0x24: return cursor.Take(WasmSpace::kGlobals, WasmForm::kUnsigned, 0, field);
    case 0x41: case 0x42: return cursor.Take(WasmSpace::kAddresses, WasmForm::kSigned, kLeastAddress, field);
    case 0x0e: return cursor.SkipLebs(cursor.Leb() + 1);
    case 0x1c: return cursor.SkipLebs(cursor.Leb());
    case 0x43: return cursor.Skip(4);
    case 0x44: return cursor.Skip(8);
    case 0x07: case 0x08: case 0x09: case 0x0c: case 0x0d: case 0x18: case 0x20: case 0x21: case 0x22: case 0x25: case 0x26:
    case 0x3f: case 0x40: case 0xd0: cursor.Leb(); return;
    case 0xfc: case 0xfd: case 0xfe: return StepPrefixed(cursor, code, field);
    default: cursor.ok = code < 0xd4 && code != 0x16 && code != 0x17;
  }
}

/** Reads a module from its start to its end. */
class Parser {
 public:
  Parser(OldContent& content, ElfImage& image) : content_(content), image_(image), window_(kWindow) {}

  void Parse() {
    image_.wasm.found = true;
    at_ = kWasmHeaderBytes;
    end_ = content_.size();
    while (at_ < content_.size()) {
      end_ = content_.size();
      const uint8_t section = Byte();
      const uint64_t bytes = Leb();
      if (!ok_ || bytes > content_.size() - at_) return;
      const uint64_t next = at_ + bytes;
      end_ = next;
      if (section == 3) Numbers(ReferenceKind::kWasmTypes, Leb(), next);
      else if (section == 9) Elements();
      else if (section == 10) Code(next);
      else if (section == 11) Data();
      ok_ = true;
      at_ = next;
    }
  }

 private:
  static constexpr size_t kWindow = 64 * 1024;

  /** Bytes from `at_` on, at least `wanted` where the section has so many. */
  const uint8_t* Look(size_t wanted, size_t& size) {
    if (at_ < window_start_ || at_ + std::min<uint64_t>(wanted, end_ - at_) > window_start_ + kWindow) {
      content_.Fetch(static_cast<int64_t>(at_), kWindow, window_.data());
      window_start_ = at_;
    }
    size = static_cast<size_t>(std::min<uint64_t>(end_, window_start_ + kWindow) - at_);
    return window_.data() + (at_ - window_start_);
  }

  /** Steps over what `step` reads through a cursor. */
  template <class Step>
  auto Take(Step&& step) {
    Cursor cursor{nullptr, 0};
    cursor.bytes = Look(16, cursor.size);
    const auto value = step(cursor);
    ok_ &= cursor.ok;
    at_ += cursor.at;
    return ok_ ? value : 0;
  }
  uint8_t Byte() {
    return Take([](Cursor& cursor) { return cursor.Byte(); });
  }
  uint64_t Leb() {
    return Take([](Cursor& cursor) { return cursor.Leb(); });
  }

  void Region(ReferenceKind kind, uint64_t start, uint64_t end, uint64_t base) {
    if (end > start && image_.regions.size() < kMaxRegions) image_.regions.push_back({start, end, kind, kNoSegment, base});
  }

  /** A list of numbers, up to `end` at most. */
  void Numbers(ReferenceKind kind, uint64_t count, uint64_t end) {
    const uint64_t start = at_;
    for (uint64_t number = 0; number < count && ok_ && at_ < end; number++) Leb();
    if (ok_) Region(kind, start, at_, 0);
  }

  /** A constant expression; what an i32.const in it gives. */
  uint64_t Expression() {
    uint64_t value = 0;
    while (ok_) {
      size_t size;
      const uint8_t* bytes = Look(64, size);
      if (size > 0 && bytes[0] == 0x0b) {
        at_++;
        return value;
      }
      Cursor cursor{bytes, size};
      const uint8_t code = cursor.Byte();
      if (code == 0x41) value = cursor.Leb() & 0xffffffff;
      WasmField field;
      const size_t length = size > 0 ? StepWasm(bytes, size, field) : 0;
      ok_ = length > 0;
      at_ += length;
    }
    return 0;
  }

  /** Of element segments those that list functions by number. */
  void Elements() {
    const uint64_t count = Leb();
    for (uint64_t number = 0; number < count && ok_; number++) {
      const uint64_t flags = Leb();
      if (flags > 3) return;
      if ((flags & 2) != 0 && (flags & 1) == 0) Leb();
      if ((flags & 1) == 0) Expression();
      if (flags != 0) Byte();
      Numbers(ReferenceKind::kWasmFunctions, Leb(), end_);
    }
  }

  void Data() {
    const uint64_t count = Leb();
    for (uint64_t number = 0; number < count && ok_; number++) {
      const uint64_t flags = Leb();
      if (flags > 2) return;
      if (flags == 2) Leb();
      const uint64_t address = flags == 1 ? 0 : Expression();
      const uint64_t bytes = Leb();
      if (!ok_ || bytes > end_ - at_) return;
      Region(ReferenceKind::kWasmData, at_, at_ + bytes, address);
      at_ += bytes;
    }
  }

  void Code(uint64_t section_end) {
    WasmImage& wasm = image_.wasm;
    if (wasm.code != 0) return;
    const uint64_t count = Leb();
    wasm.code = at_;
    wasm.steps.assign(static_cast<size_t>(std::min<uint64_t>((section_end - at_) / WasmImage::kStepBytes + 1, WasmImage::kMaxSteps)), WasmImage::kUnknown);
    Region(ReferenceKind::kWasmCode, at_, section_end, 0);
    for (uint64_t number = 0; number < count && ok_ && wasm.bodies.size() < WasmImage::kMaxBodies; number++) {
      end_ = section_end;
      const uint64_t bytes = Leb();
      if (!ok_ || bytes > section_end - at_) return;
      const uint64_t next = at_ + bytes;
      end_ = next;
      for (uint64_t locals = Leb(); locals > 0 && ok_; locals--) {
        Leb();
        Leb();
      }
      if (ok_) Body(next);
      ok_ = true;
      at_ = next;
    }
  }

  /** Notes where the instructions of a function begin. */
  void Body(uint64_t end) {
    WasmImage& wasm = image_.wasm;
    wasm.bodies.push_back({static_cast<uint32_t>(at_), static_cast<uint32_t>(end)});
    WasmField field;
    while (at_ < end) {
      size_t size;
      const uint8_t* bytes = Look(32, size);
      size_t length = StepWasm(bytes, size, field);
      if (length == 0) {
        bytes = Look(kWindow, size);
        length = StepWasm(bytes, size, field);
      }
      if (length == 0) return;
      const uint64_t within = at_ - wasm.code;
      if (within / WasmImage::kStepBytes >= wasm.steps.size()) return;
      uint8_t& step = wasm.steps[static_cast<size_t>(within / WasmImage::kStepBytes)];
      if (step == WasmImage::kUnknown) step = static_cast<uint8_t>(std::min<uint64_t>(within % WasmImage::kStepBytes, WasmImage::kUnknown));
      at_ += length;
    }
  }

  OldContent& content_;
  ElfImage& image_;
  std::vector<uint8_t> window_;
  uint64_t window_start_ = ~uint64_t{0}, at_ = 0, end_ = 0;
  bool ok_ = true;
};

}  // namespace

bool IsWasm(const uint8_t* header) { return std::memcmp(header, "\0asm\1\0\0\0", kWasmHeaderBytes) == 0; }

bool ReadWasmNumber(const uint8_t* bytes, WasmForm form, size_t size, uint64_t& value) {
  if (form == WasmForm::kWord) {
    value = Load(bytes);
    return true;
  }
  value = 0;
  for (size_t index = 0; index < size; index++) {
    if ((bytes[index] < 128) != (index + 1 == size)) return false;
    value |= uint64_t{bytes[index] & 127u} << (7 * index);
  }
  // What is negative is no index.
  return form == WasmForm::kUnsigned || (bytes[size - 1] & 64) == 0;
}

bool WriteWasmNumber(uint8_t* bytes, WasmForm form, size_t size, uint64_t value) {
  if (form == WasmForm::kWord) {
    Store(bytes, static_cast<uint32_t>(value));
    return true;
  }
  if (value >> (7 * size - (form == WasmForm::kSigned)) != 0) return false;
  for (size_t index = 0; index < size; index++) bytes[index] = static_cast<uint8_t>((value >> (7 * index) & 127) | (index + 1 < size ? 128 : 0));
  return true;
}

size_t StepWasm(const uint8_t* bytes, size_t size, WasmField& field) {
  Cursor cursor{bytes, size};
  field.space = WasmSpace::kNone;
  const uint8_t code = cursor.Byte();
  if (code >= 0x28 && code <= 0x3e) cursor.Memory(field);
  else StepPlain(cursor, code, field);
  return cursor.ok ? cursor.at : 0;
}

void ParseWasm(OldContent& content, ElfImage& image) { Parser(content, image).Parse(); }

}  // namespace whittle::codec
