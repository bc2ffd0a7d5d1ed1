// Codes a copy's bytes given the old bytes they resemble: which pages, blocks and bytes differ, and by how much.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "codec/byte_guess.h"
#include "codec/code_places.h"
#include "codec/mixing.h"
#include "codec/op_model.h"
#include "codec/range_coder.h"
#include "codec/references.h"

namespace whittle::codec {

/**
 * How much modelling a profile pays for. Histories are in tables of 2^n. `kSureMatch`, `kSureHits`: from
 * where on a match, or a byte that came before, is tried before the nibbles.
 */
struct SmallProfile {
  static constexpr int kFlagInputs = 6;
  static constexpr int kFlagBits = 20;
  static constexpr bool kGuesses = false;
  static constexpr int kValueInputs = 7;
  static constexpr int kValueBits = 13;
  static constexpr int kOrders = 5;
  static constexpr int kOrderBits = 16;
  static constexpr int kHistoryBits = 22;
  static constexpr size_t kHitMaps = 5;
  static constexpr int kHeadBits = 18, kHitBits = 18, kLongGuessBits = 17;
  static constexpr bool kNeighbours = true, kRefinesHits = true;
  static constexpr uint32_t kSparse = 1;
  static constexpr uint32_t kSureMatch = 6, kSureHits = 5;
};
struct FastProfile {
  static constexpr int kFlagInputs = 3;
  static constexpr int kFlagBits = 16;
  static constexpr bool kGuesses = true;
  static constexpr int kValueInputs = 3;
  static constexpr int kValueBits = 12;
  static constexpr int kOrders = 3;
  static constexpr int kOrderBits = 14;
  static constexpr int kHistoryBits = 21;
  static constexpr size_t kHitMaps = 2;
  static constexpr int kHeadBits = 16, kHitBits = 16, kLongGuessBits = 15;
  static constexpr bool kNeighbours = false, kRefinesHits = false;
  static constexpr uint32_t kSparse = 4;
  static constexpr uint32_t kSureMatch = 1, kSureHits = 1;
};

/** Old bytes may be read this far before and after the stretch given to a model, new bytes this far before it. */
constexpr size_t kMargin = 16;

/** Grades of the sum of a block's suspicions, in steps that grow with it. */
struct SuspicionGrades {
  static constexpr int kShift = 11;
  SuspicionGrades() {
    for (uint32_t sum = 0; sum < of.size(); sum++) {
      for (uint32_t left = sum; left > 0 && of[sum] < 15; left -= left >> 1 > 1 ? left >> 2 : 1) of[sum]++;
    }
  }
  std::array<uint8_t, (CodePlaces::kBlockBytes << 16 >> kShift)> of{};
};
inline const SuspicionGrades kSuspicionGrades;

template <class Profile>
class ResidueModel {
 public:
  static constexpr size_t kPageBytes = 4096;
  static constexpr size_t kBlockBytes = CodePlaces::kBlockBytes;

  ResidueModel()
      : flag_histories_(kFlags << Profile::kFlagBits),
        flag_mixer_(kPlaceSets + CodePlaces::kPlaces * 8, kFlags, 16384 * 5 / 2 / kFlags),
        flag_refiner_(1024),
        value_table_(Profile::kValueBits + 3),
        value_mixer_(32 * 4 * kMarks, kValues, 16384 * 5 / 2 / kValues),
        suspicion_(size_t{1} << kSuspicionBits, 1500) {
    for (AdaptiveBit& bit : pages_) bit = AdaptiveBit(16384, 2);
    for (AdaptiveBit& bit : quiet_) bit = AdaptiveBit(4096, 2);
    for (AdaptiveBit& bit : blocks_) bit = AdaptiveBit(16384, 2);
  }

  void BeginFile(uint32_t kind) {
    kind_ = kind;
    flags_ = 0;
    page_flags_ = 0;
    block_flags_ = 0;
    last_ = before_last_ = 0;
    page_dirty_ = false;
  }

  /**
   * Codes `size` bytes at `bytes` (encoder: given, decoder: written) that resemble those at `old`, and which
   * begin at `position` of their file. `marks`: what reference each old byte is part of (see ReferenceRewriter).
   * `code`: what they are, as the first of them says.
   * `rewriter` (or null) has noted the references of `old`, which it rewrites as they are reached.
   */
  template <class Coder>
  void Code(Coder& coder, const uint8_t* old, const uint8_t* marks, uint8_t* bytes, size_t size, uint64_t position, bool begins_op, CodeKind code, ReferenceRewriter* rewriter) {
    code_.Begin(code);
    bool stale = false;  // what was rewritten ahead
    first_ = ahead_ = old;
    size_t done = 0;
    while (done < size) {
      const uint64_t at = position + done;
      if (at % kPageBytes == 0 || (begins_op && done == 0)) {
        const size_t span = static_cast<size_t>(std::min<uint64_t>(size - done, kPageBytes - at % kPageBytes));
        if (rewriter != nullptr) rewriter->Place(done, done + span);
        stale = false;
        ahead_ = old + done;
        CodePage(coder, old + done, bytes + done, span, begins_op && done == 0);
        if (!page_dirty_) {
          done += span;
          continue;
        }
      }
      const size_t span = static_cast<size_t>(std::min<uint64_t>(size - done, kBlockBytes - at % kBlockBytes));
      if (page_dirty_) {
        if (stale) {
          rewriter->Place(done, done + span);
          ahead_ = old + done;
        }
        if (CodeBlock(coder, old + done, marks + done, bytes + done, span, at) && rewriter != nullptr) stale |= rewriter->Learn(bytes, done + span);
      } else {
        std::memcpy(bytes + done, old + done, span);
      }
      done += span;
    }
  }

 private:
  static constexpr int kGuessBits = 14;
  static constexpr int kSuspicionBits = 16;
  static constexpr uint8_t kSure = 2;
  static constexpr uint16_t kQuiet = 700;
  static constexpr size_t kMarks = ReferenceRewriter::kMarks;
  static constexpr size_t kFlags = Profile::kFlagInputs;
  /** The mixer's sets of weights: of other bytes, of those in references, and of those in instructions. */
  static constexpr size_t kMarkSets = kFileKinds * 4 * 8, kPlaceSets = kMarkSets + kMarks * 8;
  static constexpr size_t kValues = Profile::kValueInputs;

  template <class Coder>
  void CodePage(Coder& coder, const uint8_t* old, uint8_t* bytes, size_t span, bool begins_op) {
    const bool dirty = Coder::kEncodes && std::memcmp(old, bytes, span) != 0;
    int width = 0;
    while (span >> width) width++;
    const size_t context = ((page_flags_ & 3) * 2 + begins_op) * 16 + static_cast<size_t>(width);
    page_dirty_ = CodeAdaptive(coder, pages_[context], dirty, 120);
    page_flags_ = page_flags_ * 2 + page_dirty_;
    if (page_dirty_) return;
    if (!Coder::kEncodes) std::memcpy(bytes, old, span);
    if (span >= 32) flags_ = 0;
    else flags_ <<= span;
  }

  /** How likely some byte of a block differs, in 16 grades, by what became of like bytes before, of each byte and the two before it. Finds where their suspicions are. */
  size_t Suspect(const uint8_t* old, size_t span) {
    uint32_t sum = 0, last = Word(old - 3) & 0xffffff;
    // By pointers of their own: for all a compiler knows, what is written may be where the tables are.
    uint16_t* const suspects = suspects_.data();
    const uint16_t* const suspicion = suspicion_.data();
    for (size_t index = 0; index < span; index++) {
      last = last >> 8 | static_cast<uint32_t>(old[index]) << 16;
      suspects[index] = static_cast<uint16_t>(last * 0x9e3779b1u >> (32 - kSuspicionBits));
      sum += suspicion[suspects[index]];
    }
    return kSuspicionGrades.of[sum >> SuspicionGrades::kShift];
  }

  /** True when a byte differs. */
  template <class Coder>
  bool CodeBlock(Coder& coder, const uint8_t* old, const uint8_t* marks, uint8_t* bytes, size_t span, uint64_t position) {
    bool dirty = Coder::kEncodes && std::memcmp(old, bytes, span) != 0;
    const size_t context = (Suspect(old, span) * 32 + (block_flags_ & 31)) * 2 + (span < kBlockBytes);
    dirty = CodeAdaptive(coder, blocks_[context], dirty, 250);
    block_flags_ = block_flags_ * 2 + dirty;
    if (!dirty) {
      if (!Coder::kEncodes) std::memcpy(bytes, old, span);
      if (span >= 32) flags_ = 0;
      else flags_ <<= span;
      return false;
    }
    code_.Follow(old, span, position);
    bool differed = false;
    size_t index = 0;
    while (index < span) {
      const size_t quiet = (flags_ & 7) == 0 ? QuietRun(suspects_.data() + index, span - index) : 0;
      if (quiet < 2) {
        // A dirty block whose other bytes are equal differs in its last.
        differed |= CodeByte(coder, old + index, marks + index, bytes + index, position + index, !differed && index + 1 == span, suspects_[index]);
        index++;
      } else {
        const size_t run = CodeQuietRun(coder, old + index, marks + index, bytes + index, quiet, position + index, !differed && index + quiet == span, suspects_.data() + index);
        differed |= (flags_ & 1) != 0;
        index += run;
      }
    }
    return true;
  }

  /** How many of the next bytes rarely differ in their context. */
  size_t QuietRun(const uint16_t* suspects, size_t limit) const {
    size_t count = 0;
    while (count < limit && suspicion_[suspects[count]] < kQuiet) count++;
    return count;
  }

  /** Codes bytes that rarely differ: mostly one decision for all of them. Stops after the first that differs; returns how many. */
  template <class Coder>
  size_t CodeQuietRun(Coder& coder, const uint8_t* old, const uint8_t* marks, uint8_t* bytes, size_t size, uint64_t position, bool known, const uint16_t* suspects) {
    bool differs = Coder::kEncodes && std::memcmp(old, bytes, size) != 0;
    if (!known) {
      const size_t context = std::min<size_t>(size, 31) * 8 + Distance();
      differs = CodeAdaptive(coder, quiet_[context], differs, 250);
    } else {
      differs = true;
    }
    if (!differs) {
      if (!Coder::kEncodes) std::memcpy(bytes, old, size);
      flags_ = size >= 32 ? 0 : flags_ << size;
      return size;
    }
    for (size_t index = 0;; index++) {
      if (CodeByte(coder, old + index, marks + index, bytes + index, position + index, index + 1 == size, suspects[index])) return index + 1;
    }
  }

  template <class Coder>
  bool CodeByte(Coder& coder, const uint8_t* old, const uint8_t* mark, uint8_t* byte, uint64_t position, bool known, size_t suspect) {
    const uint8_t difference = Coder::kEncodes ? static_cast<uint8_t>(*byte - *old) : 0;
    const uint8_t before = flags_ & 1 ? static_cast<uint8_t>(byte[-1] - old[-1]) : 0;
    bool differs = known || CodeFlag(coder, old, mark, byte, position, before, difference != 0);
    uint16_t& suspicion = suspicion_[suspect];
    suspicion = static_cast<uint16_t>(suspicion + (((differs ? 65535 : 0) - suspicion) >> 4));
    flags_ = flags_ * 2 + differs;
    if (!differs) {
      if (!Coder::kEncodes) *byte = *old;
      return false;
    }
    const uint8_t value = CodeValue(coder, old, *mark, byte, position, before, difference);
    if (!Coder::kEncodes) *byte = static_cast<uint8_t>(*old + value);
    before_last_ = last_;
    last_ = value;
    return true;
  }

  /** Bytes since the last that differed: 0 to 7, in growing steps. */
  uint32_t Distance() const {
    if (flags_ == 0) return 7;
    const int zeros = __builtin_ctz(flags_);
    return zeros < 4 ? static_cast<uint32_t>(zeros) : zeros < 6 ? 4 : zeros < 12 ? 5 : 6;
  }

  static uint32_t Word(const uint8_t* bytes) {
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 | static_cast<uint32_t>(bytes[2]) << 16 |
           static_cast<uint32_t>(bytes[3]) << 24;
  }

  /** The field that a byte seems to belong to: what the instruction is, as far as old bytes tell, and where in it, or in a table, we are. */
  uint32_t Field(const uint8_t* old, uint64_t position) const {
    if (code_.Tell()) return code_.Field(old);
    const uint32_t phase = static_cast<uint32_t>(position & 3);
    switch (kind_) {
      case kArm64:
      case kArm32:
        return phase << 8 | old[3 - phase];
      case kX86:
        return static_cast<uint32_t>(position & 3);
      default:
        return static_cast<uint32_t>(position & 7) << 8 | old[-4];
    }
  }

  /** The mixer's set of weights. */
  size_t FlagSet(const uint8_t* old, uint32_t mark, uint64_t position, uint32_t distance) const {
    if (mark != 0) return kMarkSets + mark * 8 + distance;
    if (code_.Tell()) return kPlaceSets + code_.Place(old) * 8 + distance;
    return (kind_ * 4 + (position & 3)) * 8 + distance;
  }

  /**
   * Where the histories of a byte's flag are, so far as old bytes tell: asked for before the byte's turn, so that
   * they are in the cache when it comes.
   */
  void FindFlagBases(const uint8_t* old, uint32_t mark, uint64_t position, uint32_t* bases) {
    const uint32_t field = Field(old, position);
    bases[0] = Top(Hash(Word(old - 1) << 16, field), 3);
    bases[1] = Top(Hash(Word(old), 1), 2);
    if (kFlags > 3) {
      bases[3] = Top(Hash(field, mark << 8 | old[0]), 4);
      bases[5] = Top(Hash(Word(old - 7), Word(old - 3)), 0);
    }
    for (size_t index : {0, 1, 3, 5}) {
      if (index < kFlags) __builtin_prefetch(&flag_histories_[(index << Profile::kFlagBits) + bases[index]]);
    }
  }

  /** The first of 2^free indexes into a table of flag histories. */
  static uint32_t Top(uint32_t hash, int free) { return (hash >> (32 - Profile::kFlagBits + free)) << free; }

  template <class Coder>
  int CodeFlag(Coder& coder, const uint8_t* old, const uint8_t* marks, const uint8_t* byte, uint64_t position, uint8_t before, int differs) {
    const uint32_t flags = flags_;
    const uint32_t distance = Distance();
    const uint32_t mark = *marks;
    if (ahead_ < old) ahead_ = old;
    for (; ahead_ <= old + 2; ahead_++) FindFlagBases(ahead_, marks[ahead_ - old], position + static_cast<uint64_t>(ahead_ - old), bases_[(ahead_ - first_) & 3]);
    const uint32_t* bases = bases_[(old - first_) & 3];
    uint32_t indexes[6];
    indexes[0] = bases[0] | (flags & 7);
    indexes[1] = bases[1] | (flags & 3);
    indexes[2] = Top(Hash((flags & 0xfff) << 5 | (code_.Tell() ? code_.Place(old) : position & 7), 0x100 | mark), 0);
    if (kFlags > 3) {
      indexes[3] = bases[3] | (flags & 15);
      indexes[4] = Top(Hash(static_cast<uint32_t>(last_) << 16 | static_cast<uint32_t>(old[0]) << 8 | before, distance), 0);
      indexes[5] = bases[5];
    }
    History* histories[kFlags];
    Mixer::Inputs inputs;
    for (size_t index = 0; index < kFlags; index++) {
      histories[index] = &flag_histories_[(index << Profile::kFlagBits) + indexes[index]];
      inputs.values[index] = static_cast<int16_t>(flag_maps_[index].Predict(*histories[index]));
    }
    Mixer::Inputs& weights = flag_mixer_.Weights(FlagSet(old, mark, position, distance));
    const int mixed = Mixer::Mix(inputs, weights);
    uint16_t* nearest;
    const uint32_t refined = flag_refiner_.Refine(mixed, mark != 0 ? 256 + mark * 8 + (flags & 7) : flags & 255, nearest);
    differs = coder.Code(differs, Blend(Squash(mixed), refined));
    Mixer::Update(inputs, weights, mixed, differs, 1);
    Refiner::Update(nearest, differs);
    for (size_t index = 0; index < kFlags; index++) flag_maps_[index].Update(*histories[index], differs);
    return differs;
  }

  static uint32_t Blend(uint32_t mixed, uint32_t refined) {
    const uint32_t probability = (mixed + refined) >> 1;
    return probability < 1 ? 1 : probability > 65535 ? 65535 : probability;
  }

  template <class Coder>
  uint8_t CodeValue(Coder& coder, const uint8_t* old, uint8_t mark, const uint8_t* byte, uint64_t position, uint8_t before, uint8_t value) {
    uint32_t hashes[7];
    const uint32_t flags = flags_;  // its lowest bit is this byte
    hashes[0] = Hash(static_cast<uint32_t>(old[0]) << 8 | before, 0x10000u | static_cast<uint32_t>(mark) << 8 | ((flags >> 1) & 1));
    hashes[1] = Hash(static_cast<uint32_t>(last_) << 8 | before_last_, 0x200 | ((flags >> 1) & 3));
    hashes[2] = Hash(Word(old), 0x300);
    if (kValues > 3) {
      hashes[3] = Hash(Word(old - 3), 0x400 | before);
      hashes[4] = Hash(static_cast<uint32_t>(before) << 8 | mark, 0x500 | ((flags >> 1) & 7));
      hashes[5] = Hash(static_cast<uint32_t>(byte[-1]) << 16 | static_cast<uint32_t>(byte[-2]) << 8 | old[0], 0x600);
      hashes[6] = Hash(Field(old, position), static_cast<uint32_t>(before) << 8 | 0x80);
    }
    if (!Profile::kGuesses) return CodeUnguessed(coder, mark, hashes, value);
    ByteGuess* const guesses[2] = {&guesses_[hashes[0] >> (32 - kGuessBits)], &guesses_[hashes[1] >> (32 - kGuessBits)]};
    const ByteGuess& best = *guesses[guesses[1]->hits > guesses[0]->hits];
    bool hit = false;
    if (best.hits >= kSure) {
      const size_t context = (best.hits * 2u + (guesses[0]->value == guesses[1]->value)) * 2 + (mark != 0);
      hit = CodeAdaptive(coder, sure_[context], best.value == value, 250);
    }
    if (hit) value = best.value;
    else value = CodeUnguessed(coder, mark, hashes, value);
    for (ByteGuess* guess : guesses) guess->Update(value);
    return value;
  }

  template <class Coder>
  uint8_t CodeUnguessed(Coder& coder, uint32_t mark, uint32_t* hashes, uint8_t value) {
    const uint32_t high = CodeNibble(coder, mark, hashes, 0, value >> 4);
    for (size_t index = 0; index < kValues; index++) hashes[index] = Hash(hashes[index], 0x1000 + high);
    return static_cast<uint8_t>(high << 4 | CodeNibble(coder, mark, hashes, 1 + high, value & 15));
  }

  template <class Coder>
  uint32_t CodeNibble(Coder& coder, uint32_t mark, const uint32_t* hashes, uint32_t prefix, uint32_t value) {
    NibbleSlot* slots[kValues];
    value_table_.template Find<kValues>(hashes, slots);
    Mixer::Inputs* const weights = &value_mixer_.Weights((prefix == 0 ? 0 : 16) + 32 * (((flags_ >> 1) & 3) + 4 * mark));
    Held<Coder> held(coder);
    uint32_t node = 1;
    for (int place = 3; place >= 0; place--) {
      Mixer::Inputs inputs;
      for (size_t index = 0; index < kValues; index++) inputs.values[index] = static_cast<int16_t>(value_maps_[index].Predict(slots[index]->histories[node - 1]));
      int bit = static_cast<int>(value >> place) & 1;
      const int mixed = Mixer::Mix(inputs, weights[node]);
      bit = held.Code(bit, Squash(mixed));
      Mixer::Update(inputs, weights[node], mixed, bit, 2);
      for (size_t index = 0; index < kValues; index++) value_maps_[index].Update(slots[index]->histories[node - 1], bit);
      node = node * 2 + static_cast<uint32_t>(bit);
    }
    return node & 15;
  }

  LargeVector<History> flag_histories_;
  std::array<HistoryMap, kFlags> flag_maps_;
  Mixer flag_mixer_;
  Refiner flag_refiner_;
  NibbleTable value_table_;
  std::array<HistoryMap, kValues> value_maps_;
  Mixer value_mixer_;
  CodePlaces code_;
  std::vector<uint16_t> suspicion_;
  std::array<uint16_t, kBlockBytes> suspects_;  // of the block at hand
  std::vector<ByteGuess> guesses_ = std::vector<ByteGuess>(size_t{1} << kGuessBits);
  std::array<AdaptiveBit, 64> sure_;
  std::array<AdaptiveBit, 128> pages_;
  std::array<AdaptiveBit, 256> quiet_;
  std::array<AdaptiveBit, 16 * 32 * 2> blocks_;
  const uint8_t* first_ = nullptr;  // of the old bytes at hand
  const uint8_t* ahead_ = nullptr;  // the first whose bases are not found
  uint32_t bases_[4][6] = {};
  uint32_t kind_ = 0, flags_ = 0, page_flags_ = 0, block_flags_ = 0;
  uint8_t last_ = 0, before_last_ = 0;
  bool page_dirty_ = false;
};

}  // namespace whittle::codec
