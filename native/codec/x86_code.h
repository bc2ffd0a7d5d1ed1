// Where in an instruction of x86 the next byte stands, by the bytes before it. Code is told byte by byte; what a byte may be
// depends on whether it is an opcode, an operand or a part of a number, and on what was done before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/mixing.h"

namespace whittle::codec {

/**
 * Reads instructions as far as it takes to know where each ends. Any bytes will do: what is no instruction is read as some
 * other one. Started amid one, it is in step again after a few.
 */
class X86Code {
 public:
  /** What the next byte is. Of displacements and immediates of more than one byte, the bytes that are left are added. */
  enum Place : uint8_t {
    kFirst = 0, kPrefixed = 1, kRexed = 2, kEscaped = 3, kVex = 4, kVexed = 5, kModRm = 6, kSib = 7, kDisplacement = 8, kImmediate = 13,
    kPlaces = 22,
  };

  /** Starts over, for code of 64 or 32 bits. */
  void Begin(bool is_64) {
    *this = X86Code();
    is_64_ = is_64;
  }

  /** Takes the next byte. */
  void Step(uint8_t byte) {
    if (place_ >= kDisplacement) return StepNumber();
    shape_ = Hash(shape_, byte);
    switch (place_) {
      case kFirst: case kPrefixed: return Start(byte);
      case kEscaped: return Escaped(byte);
      case kVex: return Vex(byte);
      case kModRm: return ModRm(byte);
      case kSib: return (modrm_ >> 6) == 0 && (byte & 7) == 5 ? Number(kDisplacement, 4) : Address();
      default: return Opcode(byte);
    }
  }

  /** Takes the next bytes. */
  void Step(const uint8_t* bytes, size_t size) {
    for (size_t index = 0; index < size; index++) Step(bytes[index]);
  }

  /** What the next byte is, below kPlaces. */
  uint32_t place() const { return place_; }

  /**
   * Five contexts for the next byte. New code is in short runs, so what many instructions share tells most: what the
   * byte is, with what the instruction is so far and what those before it did. Numbers are in none but the byte before.
   */
  void Contexts(uint8_t byte_before, uint32_t* hashes) const {
    const uint32_t shape = Hash(shape_, place_);
    const uint32_t opcodes = Hash(static_cast<uint32_t>(place_) << 16 | opcode_, last_);
    hashes[0] = Hash(place_, 0x100);
    hashes[1] = opcodes;
    hashes[2] = Hash(shape, 0x200);
    hashes[3] = Hash(shape, 0x400000 | before_last_ << 11 | last_);
    hashes[4] = Hash(static_cast<uint32_t>(place_) << 8 | byte_before, 0x400);
  }

 private:
  /** What follows an opcode: a ModRM byte, and how many bytes of immediate, or one of those below. */
  static constexpr uint8_t kHasModRm = 16, kImmediateBits = 15;
  static constexpr uint8_t kOperand = 9, kWide = 10, kOffset = 11;  // immediates whose size prefixes or the mode say
  static constexpr uint8_t kMapFollows = 8;
  struct Forms {
    Forms();
    uint8_t of[4][256];  // by the opcode's map
  };
  static const Forms kForms;

  void Start(uint8_t byte) {
    const bool segment = (byte & 0xe7) == 0x26 || byte == 0x64 || byte == 0x65;
    if (segment || byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3) {
      if (byte == 0x66) is_16_ = true;
      place_ = kPrefixed;
    } else if (is_64_ && (byte & 0xf0) == 0x40) {
      is_wide_ = (byte & 8) != 0;
      place_ = kRexed;
    } else if (is_64_ && (byte == 0xc4 || byte == 0xc5 || byte == 0x62)) {
      map_ = byte == 0xc5 ? 5 : kMapFollows;
      left_ = byte == 0xc5 ? 1 : byte == 0xc4 ? 2 : 3;
      place_ = kVex;
    } else {
      Opcode(byte);
    }
  }

  void Escaped(uint8_t byte) {
    if (map_ == 1 && (byte == 0x38 || byte == 0x3a)) map_ = byte == 0x38 ? 2 : 3;
    else Opcode(byte);
  }

  /** The bytes after C4, C5 or 62: the first of two or three says the map. */
  void Vex(uint8_t byte) {
    if (map_ == kMapFollows) map_ = 4 + (byte & 3);
    if (--left_ == 0) place_ = kVexed;
  }

  void Opcode(uint8_t byte) {
    if (byte == 0x0f && map_ == 0) {
      map_ = 1;
      place_ = kEscaped;
      return;
    }
    opcode_ = static_cast<uint32_t>(map_) << 8 | byte;
    const uint8_t form = kForms.of[map_ & 3][byte];
    immediate_ = form & kImmediateBits;
    if ((form & kHasModRm) != 0) place_ = kModRm;
    else Operands();
  }

  void ModRm(uint8_t byte) {
    modrm_ = byte;
    // TEST has an immediate, the others of its group have none.
    if ((opcode_ == 0xf6 || opcode_ == 0xf7) && (byte & 0x38) >= 0x10) immediate_ = 0;
    if ((byte >> 6) == 3) Operands();
    else if ((byte & 7) == 4) place_ = kSib;
    else if ((byte & 0xc7) == 5) Number(kDisplacement, 4);
    else Address();
  }

  /** After ModRM and SIB. */
  void Address() {
    const uint8_t mode = modrm_ >> 6;
    if (mode == 0) Operands();
    else Number(kDisplacement, mode == 1 ? 1 : 4);
  }

  /** After opcode and address. */
  void Operands() {
    uint8_t size = immediate_;
    immediate_ = 0;
    if (size == kOffset) size = is_64_ ? 8 : 4;
    else if (size == kWide && is_wide_) size = 8;
    else if (size >= kOperand) size = is_16_ ? 2 : 4;
    if (size == 0) End();
    else Number(kImmediate, size);
  }

  void Number(Place kind, uint8_t size) {
    left_ = size;
    place_ = static_cast<uint8_t>(size == 1 ? kind : kind + size);
  }

  void StepNumber() {
    const bool is_displacement = place_ < kImmediate;
    place_--;
    if (--left_ > 0) return;
    if (is_displacement) Operands();
    else End();
  }

  void End() {
    before_last_ = last_;
    last_ = opcode_;
    opcode_ = shape_ = 0;
    place_ = kFirst;
    map_ = modrm_ = 0;
    is_16_ = is_wide_ = false;
  }

  uint32_t shape_ = 0;  // a hash of what the instruction has so far, but for displacement and immediate
  uint32_t opcode_ = 0, last_ = 0, before_last_ = 0;  // 256 times the map and the opcode: of this instruction once it is known, of those before
  uint8_t place_ = kFirst, map_ = 0, modrm_ = 0, immediate_ = 0, left_ = 0;
  bool is_64_ = true, is_16_ = false, is_wide_ = false;
};

}  // namespace whittle::codec
