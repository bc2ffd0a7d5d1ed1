#include "codec/encode.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "codec/file_walker.h"
#include "codec/encode_indexes.h"
#include "codec/kernel_image.h"
#include "codec/range_coder.h"
#include "codec/segment_shifts.h"

namespace whittle::codec {

namespace {

uint32_t ReadHalf(const uint8_t* bytes) { return static_cast<uint32_t>(bytes[0] | bytes[1] << 8); }

/** What a file is, by its first bytes. */
uint32_t SniffKind(const uint8_t* bytes, size_t size) {
  if (size >= 20 && std::memcmp(bytes, "\x7f" "ELF", 4) == 0 && bytes[5] == 1) {
    switch (ReadHalf(bytes + 18)) {
      case 3: case 62: return kX86;
      case 40: return kArm32;
      case 183: return kArm64;
      case 243: return kRiscv;
      default: return kBinary;
    }
  }
  if (size >= kWasmHeaderBytes && IsWasm(bytes)) return kWasm;
  if (size >= kKernelHeaderBytes && IsKernelImage(bytes)) return kArm64;
  if (size >= 16 && bytes[2] == '\r' && bytes[3] == '\n' && bytes[1] < 32) return kPyc;
  size_t strange = 0;
  for (size_t index = 0; index < size; index++) strange += bytes[index] < 9 || (bytes[index] > 13 && bytes[index] < 32);
  return size > 0 && strange * 64 <= size ? kText : kBinary;
}

/** Target content, read forwards. */
class Target {
 public:
  explicit Target(const Content& content) : reader_({content}) {}
  uint64_t size() const { return reader_.size(); }
  void Read(uint64_t position, uint8_t* destination, size_t size) { reader_.Read(position, size, destination); }
  uint32_t Kind() {
    uint8_t start[4096];
    const size_t size = static_cast<size_t>(std::min<uint64_t>(sizeof start, reader_.size()));
    reader_.Read(0, size, start);
    return SniffKind(start, size);
  }

 private:
  ContentReader reader_;
};

void AppendLength(std::vector<uint8_t>& bytes, size_t length) {
  for (; length >= 128; length >>= 7) bytes.push_back(static_cast<uint8_t>(length | 128));
  bytes.push_back(static_cast<uint8_t>(length));
}

/** Whether fewer bytes differ when references are rewritten. */
bool RewritingPays(const EncodeFile& file, ReferenceRewriter& rewriter) {
  constexpr size_t kChunk = 32 * 1024, kLead = ReferenceRewriter::kLead, kTrail = ReferenceRewriter::kTrail;
  ContentReader target({file.target});
  OldContent old(file.sources);
  std::vector<uint8_t> plain(kLead + kChunk + kTrail), rewritten(plain.size()), wanted(kChunk), marks(kChunk);
  uint64_t plain_misses = 0, rewritten_misses = 0;
  for (const Op& op : file.ops) {
    for (uint64_t done = 0; done < op.length; done += kChunk) {
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, op.length - done));
      old.Fetch(static_cast<int64_t>(op.old_position + done) - static_cast<int64_t>(kLead), kLead + size + kTrail, plain.data());
      target.Read(op.new_position + done, size, wanted.data());
      rewritten = plain;
      rewriter.Rewrite(rewritten.data() + kLead, size, op.old_position + done, op.new_position + done, marks.data());
      for (size_t index = 0; index < size; index++) {
        plain_misses += plain[kLead + index] != wanted[index];
        rewritten_misses += rewritten[kLead + index] != wanted[index];
      }
    }
  }
  return rewritten_misses + rewritten_misses / 50 < plain_misses;
}

/** The file's references, or null when rewriting them does not pay. */
std::unique_ptr<References> FindReferences(const EncodeFile& file, uint32_t kind, uint64_t old_size) {
  if (!MayHaveReferences(kind, file.target.size, old_size) || file.ops.size() > AddressMap::kMaxOps) return nullptr;
  OldContent old(file.sources), target({file.target});
  auto references = std::make_unique<References>();
  ElfImage image;
  if (!ParseElf(old, references->image) || !ParseElf(target, image)) return nullptr;
  references->shifts = FindShifts(references->image, image);
  if (!AreSmall(references->shifts)) return nullptr;
  if (references->image.wasm.found != image.wasm.found) return nullptr;
  const std::vector<SmallOp> ops(file.ops.begin(), file.ops.end());
  references->shifts.indexes = FindIndexRuns(references->image, old, target, ops);
  references->map.Build(references->image, references->shifts, ops);
  if (!RewritingPays(file, references->rewriter)) return nullptr;
  return references;
}

template <class Profile>
class ProfileEncoder final : public Encoder {
 public:
  std::vector<uint8_t> Segment(const std::vector<EncodeFile>& files, int threads, EncodeStats& stats) override {
    const auto work = [&](int stream) {
      if (stream == 0) EncodeOps(files);
      else if (stream == 1) Walk(files, &residue_coder_, &residue_, nullptr, nullptr);
      else Walk(files, nullptr, nullptr, &literal_coder_, &literals_);
    };
    if (threads > 1) {
      std::exception_ptr failure;
      std::thread other([&] {
        try {
          work(2);
        } catch (...) {
          failure = std::current_exception();
        }
      });
      try {
        work(0);
        work(1);
      } catch (...) {
        other.join();
        throw;
      }
      other.join();
      if (failure) std::rethrow_exception(failure);
    } else {
      for (int stream = 0; stream < 3; stream++) work(stream);
    }
    return Assemble(files, stats);
  }

 private:
  std::vector<uint8_t> Assemble(const std::vector<EncodeFile>& files, EncodeStats& stats) {
    const std::vector<uint8_t> streams[3] = {op_coder_.Finish(), residue_coder_.Finish(), literal_coder_.Finish()};
    stats.op_bytes = streams[0].size();
    stats.residue_bytes = streams[1].size();
    stats.literal_bytes = streams[2].size();
    for (const EncodeFile& file : files) {
      uint64_t copied = 0;
      for (const Op& op : file.ops) copied += op.length;
      stats.ops += file.ops.size();
      stats.copied += copied;
      stats.literal += file.target.size - copied;
    }
    std::vector<uint8_t> segment;
    for (const auto& stream : streams) AppendLength(segment, stream.size());
    for (const auto& stream : streams) segment.insert(segment.end(), stream.begin(), stream.end());
    return segment;
  }

  void EncodeOps(const std::vector<EncodeFile>& files) {
    references_.clear();
    for (const EncodeFile& file : files) {
      Target target(file.target);
      uint64_t old_size = 0;
      for (const Content& source : file.sources) old_size += source.size;
      const uint32_t kind = target.Kind();
      ops_.BeginFile(op_coder_, kind, target.size(), old_size);
      references_.push_back(FindReferences(file, kind, old_size));
      if (MayHaveReferences(kind, target.size(), old_size)) ops_.CodeReferences(op_coder_, references_.back() != nullptr);
      if (references_.back() != nullptr) {
        const Shifts& shifts = references_.back()->shifts;
        for (const SegmentShift& shift : shifts.segments) {
          ops_.CodeShift(op_coder_, shift.bias);
          ops_.CodeShift(op_coder_, shift.tail);
        }
        if (references_.back()->image.go.found) {
          for (const int64_t shift : shifts.go) ops_.CodeShift(op_coder_, shift);
        }
        if (references_.back()->image.wasm.found) ops_.CodeRuns(op_coder_, references_.back()->shifts.indexes);
      }
      for (Op op : file.ops) ops_.Code(op_coder_, op, true);
      Op none{target.size(), 0, 0};
      ops_.Code(op_coder_, none, false);
    }
  }

  void Walk(const std::vector<EncodeFile>& files, RangeEncoder* residue_coder, ResidueModel<Profile>* residue,
            RangeEncoder* literal_coder, LiteralModel<Profile>* literals) {
    FileWalker<RangeEncoder, Profile> walker(residue_coder, residue, literal_coder, literals);
    for (size_t number = 0; number < files.size(); number++) {
      const EncodeFile& file = files[number];
      Target target(file.target);
      OldContent old(file.sources);
      ReferenceRewriter* rewriter = residue != nullptr && references_[number] != nullptr ? &references_[number]->rewriter : nullptr;
      size_t next = 0;
      const uint32_t kind = target.Kind();
      // Not those of `references_`: another thread may be making them.
      CodeRanges code;
      ElfImage image;
      if (MayHaveReferences(kind, target.size(), old.size()) && ParseElf(old, image, false)) code = FindCode(old, image);
      walker.Begin(kind, target.size(), &old, rewriter, std::move(code), [&](Op& op) {
        if (next == file.ops.size()) return false;
        op = file.ops[next++];
        return true;
      });
      while (walker.position() < walker.size()) {
        const uint64_t position = walker.position();
        walker.CodePage([&](uint8_t* page, size_t size) { target.Read(position, page, size); });
      }
    }
  }

  RangeEncoder op_coder_, residue_coder_, literal_coder_;
  OpModel ops_;
  std::vector<std::unique_ptr<References>> references_;  // of the segment's files, made by EncodeOps
  ResidueModel<Profile> residue_;
  LiteralModel<Profile> literals_;
};

}  // namespace

std::unique_ptr<Encoder> MakeEncoder(ProfileName profile) {
  if (profile == ProfileName::kFast) return std::make_unique<ProfileEncoder<FastProfile>>();
  return std::make_unique<ProfileEncoder<SmallProfile>>();
}

}  // namespace whittle::codec
