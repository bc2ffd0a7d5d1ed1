// The decoder itself, as a template over what reads its bits.
#pragma once

#include <string>

#include "codec/decode.h"
#include "codec/file_walker.h"
#include "codec/range_coder.h"

namespace whittle::codec {

[[noreturn]] inline void ThrowCorrupt(const char* what) { throw CodedError("DELTA_CORRUPT", what); }

/** As wide on every machine: a length that a size_t of 32 bits cannot hold must not look like a short one there. */
inline uint64_t ReadLength(const uint8_t*& next, const uint8_t* end) {
  uint64_t value = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (next == end) ThrowCorrupt("segment ends within its header");
    const uint8_t byte = *next++;
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
  ThrowCorrupt("segment has a stream length that is too long");
}

/** The decoder over models of `Profile`. `Coder` reads bits: a RangeDecoder, or one that counts them besides. */
template <class Profile, class Coder>
class ProfileDecoder : public Decoder {
 public:
  ProfileDecoder() : walker_(&residue_coder_, &residue_, &literal_coder_, &literals_) {}

  void Segment(const uint8_t* streams, size_t size) override {
    if (has_segment_) End();
    has_segment_ = false;
    streams_.assign(streams, streams + size);
    const uint8_t* next = streams_.data();
    const uint8_t* end = next + size;
    uint64_t lengths[3];
    for (uint64_t& length : lengths) length = ReadLength(next, end);
    Coder* const coders[3] = {&op_coder_, &residue_coder_, &literal_coder_};
    for (int index = 0; index < 3; index++) {
      if (lengths[index] > static_cast<uint64_t>(end - next)) ThrowCorrupt("segment is shorter than its streams");
      const size_t length = static_cast<size_t>(lengths[index]);
      coders[index]->Start(next, length);
      next += length;
    }
    if (next != end) ThrowCorrupt("segment is longer than its streams");
    has_segment_ = true;
  }

  void Begin(const std::vector<Content>& sources, uint64_t size) override {
    Guarded([&] {
      RequireFileEnd();
      old_ = std::make_unique<OldContent>(sources);
      const uint32_t kind = ops_.BeginFile(op_coder_, 0, size, old_->size());
      references_.reset();
      if (MayHaveReferences(kind, size, old_->size()) && ops_.CodeReferences(op_coder_, false)) {
        ReadReferences();
        walker_.Begin(kind, size, old_.get(), &references_->rewriter, OldCode(kind, size), [this](Op& op) {
          if (next_op_ == file_ops_.size()) return false;
          op = file_ops_[next_op_++].Whole();
          return true;
        });
      } else {
        walker_.Begin(kind, size, old_.get(), nullptr, OldCode(kind, size), [this](Op& op) { return ops_.Code(op_coder_, op, false); });
      }
      page_used_ = page_size_ = 0;
    });
  }

  size_t Next(uint8_t* out, size_t size) override {
    size_t written = 0;
    Guarded([&] {
      while (written < size) {
        if (page_used_ == page_size_) {
          if (walker_.position() == walker_.size()) break;
          page_size_ = walker_.CodePage(nullptr);
          page_used_ = 0;
          RequireSound();
        }
        const size_t count = std::min(size - written, page_size_ - page_used_);
        std::memcpy(out + written, walker_.page() + page_used_, count);
        page_used_ += count;
        written += count;
      }
    });
    return written;
  }

  void End() override {
    Guarded([&] {
      RequireFileEnd();
      RequireSound();
      if (!op_coder_.AtEnd() || !residue_coder_.AtEnd() || !literal_coder_.AtEnd()) ThrowCorrupt("segment has bytes that no file needs");
    });
  }

 protected:
  Coder op_coder_, residue_coder_, literal_coder_;

 private:
  /** Runs a step of decoding; after one that throws, every other one throws. */
  template <class Step>
  void Guarded(Step&& step) {
    if (broken_) ThrowCorrupt("decoder is used after an error");
    if (!has_segment_) ThrowCorrupt("decoder has no segment");
    broken_ = true;
    try {
      step();
    } catch (const CorruptStream& corrupt) {
      ThrowCorrupt(corrupt.what);
    }
    broken_ = false;
  }

  /** References are rewritten through the whole list of ops, so it is read before the first byte. */
  void ReadReferences() {
    references_ = std::make_unique<References>();
    if (!ParseElf(*old_, references_->image)) ThrowCorrupt("references are to be rewritten in what is no executable");
    references_->shifts.segments.resize(references_->image.segments.size());
    for (SegmentShift& shift : references_->shifts.segments) {
      shift.bias = ops_.CodeShift(op_coder_, 0);
      shift.tail = ops_.CodeShift(op_coder_, 0);
    }
    if (references_->image.go.found) {
      for (int64_t& shift : references_->shifts.go) shift = ops_.CodeShift(op_coder_, 0);
    }
    if (references_->image.wasm.found) ops_.CodeRuns(op_coder_, references_->shifts.indexes);
    file_ops_.clear();
    next_op_ = 0;
    for (Op op; ops_.Code(op_coder_, op, false);) {
      if (file_ops_.size() == AddressMap::kMaxOps) ThrowCorrupt("a file with references has too many copies");
      file_ops_.emplace_back(op);
    }
    references_->map.Build(references_->image, references_->shifts, file_ops_);
  }

  /** The old file's code, references or not. */
  CodeRanges OldCode(uint32_t kind, uint64_t size) {
    if (!MayHaveReferences(kind, size, old_->size())) return {};
    if (references_ != nullptr) return FindCode(*old_, references_->image);
    ElfImage image;
    return ParseElf(*old_, image, false) ? FindCode(*old_, image) : CodeRanges();
  }

  void RequireFileEnd() {
    if (walker_.position() != walker_.size() || page_used_ != page_size_) ThrowCorrupt("file was not read to its end");
  }

  void RequireSound() {
    if (!op_coder_.IsSound() || !residue_coder_.IsSound() || !literal_coder_.IsSound()) ThrowCorrupt("segment ends too early");
  }

  std::vector<uint8_t> streams_;
  OpModel ops_;
  ResidueModel<Profile> residue_;
  LiteralModel<Profile> literals_;
  FileWalker<Coder, Profile> walker_;
  std::unique_ptr<OldContent> old_;
  std::unique_ptr<References> references_;
  std::vector<SmallOp> file_ops_;
  size_t next_op_ = 0;
  size_t page_used_ = 0, page_size_ = 0;
  bool has_segment_ = false, broken_ = false;
};

}  // namespace whittle::codec
