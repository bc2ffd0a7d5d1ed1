#include "codec/encode.h"

#include <exception>
#include <thread>

#include "codec/file_walker.h"
#include "codec/range_coder.h"

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
      default: return kBinary;
    }
  }
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
    for (const EncodeFile& file : files) {
      Target target(file.target);
      uint64_t old_size = 0;
      for (const Content& source : file.sources) old_size += source.size;
      ops_.BeginFile(op_coder_, target.Kind(), target.size(), old_size);
      for (Op op : file.ops) ops_.Code(op_coder_, op, true);
      Op none{target.size(), 0, 0};
      ops_.Code(op_coder_, none, false);
    }
  }

  void Walk(const std::vector<EncodeFile>& files, RangeEncoder* residue_coder, ResidueModel<Profile>* residue,
            RangeEncoder* literal_coder, LiteralModel<Profile>* literals) {
    FileWalker<RangeEncoder, Profile> walker(residue_coder, residue, literal_coder, literals);
    for (const EncodeFile& file : files) {
      Target target(file.target);
      OldContent old(file.sources);
      size_t next = 0;
      walker.Begin(target.Kind(), target.size(), &old, [&](Op& op) {
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
  ResidueModel<Profile> residue_;
  LiteralModel<Profile> literals_;
};

}  // namespace

std::unique_ptr<Encoder> MakeEncoder(ProfileName profile) {
  if (profile == ProfileName::kFast) return std::make_unique<ProfileEncoder<FastProfile>>();
  return std::make_unique<ProfileEncoder<SmallProfile>>();
}

}  // namespace whittle::codec
