// Walks a target file page by page through its ops and gives each stretch to its model. Encoder and decoder share it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "codec/code_ranges.h"
#include "codec/literal_model.h"
#include "codec/old_content.h"
#include "codec/op_model.h"
#include "codec/references.h"
#include "codec/residue_model.h"

namespace whittle::codec {

/** Gives the file's next op; false after the last. */
using NextOp = std::function<bool(Op&)>;

template <class Coder, class Profile>
class FileWalker {
 public:
  static constexpr size_t kPageBytes = 32 * 1024;
  using Residue = ResidueModel<Profile>;
  using Literals = LiteralModel<Profile>;
  /** Bytes before a page that are looked at. */
  static constexpr size_t kBack = std::max(kMargin, Literals::kCodeBefore);

  /** A null model leaves its stretches alone: the encoder runs one model per thread. All are borrowed. */
  FileWalker(Coder* residue_coder, Residue* residue, Coder* literal_coder, Literals* literals)
      : residue_coder_(residue_coder), literal_coder_(literal_coder), residue_(residue), literals_(literals),
        page_(kBack + kPageBytes), old_(ReferenceRewriter::kLead + kPageBytes + ReferenceRewriter::kTrail), backward_(kPageBytes), turned_(kMargin + kPageBytes), marks_(kPageBytes + 2) {}

  /** Starts a file. `old` and `rewriter` (null: references stay as they are) are borrowed until the file ends. `code` is that of the old file. */
  void Begin(uint32_t kind, uint64_t size, OldContent* old, ReferenceRewriter* rewriter, CodeRanges code, NextOp next_op) {
    rewriter_ = rewriter;
    code_ = std::move(code);
    run_kind_ = CodeKind::kNone;
    if (rewriter != nullptr) {
      learned_.Clear(old->size());
      rewriter->Begin(tables_);
    }
    std::fill(marks_.begin(), marks_.end(), uint8_t{0});
    size_ = size;
    position_ = 0;
    content_ = old;
    next_op_ = std::move(next_op);
    op_ = Op{};
    has_op_ = true;  // a copy of nothing before the first byte
    previous_end_ = 0;
    if (residue_ != nullptr) residue_->BeginFile(kind);
    if (literals_ != nullptr) literals_->BeginFile(kind);
    std::fill(page_.begin(), page_.end(), uint8_t{0});
  }

  uint64_t position() const { return position_; }
  uint64_t size() const { return size_; }

  /** Codes the next page, given the bytes it has (encoder) or writing them (decoder); returns its bytes. */
  size_t CodePage(const std::function<void(uint8_t*, size_t)>& fill) {
    uint8_t* page = page_.data() + kBack;
    std::memmove(page_.data(), page_.data() + last_page_bytes_, kBack);
    const size_t count = static_cast<size_t>(std::min<uint64_t>(kPageBytes, size_ - position_));
    if (fill) fill(page, count);
    const uint64_t end = position_ + count;
    uint8_t* bytes = page;
    while (position_ < end) {
      if (has_op_ && position_ == op_.new_position + op_.length) TakeOp();
      const bool literal = !has_op_ || position_ < op_.new_position;
      const uint64_t stretch_end = !has_op_ ? size_ : literal ? op_.new_position : op_.new_position + op_.length;
      const size_t span = static_cast<size_t>(std::min(stretch_end, end) - position_);
      if (literal) {
        CodeLiteral(bytes, span);
        if (rewriter_ != nullptr) tables_.Take(position_, bytes, span);
      } else {
        CodeCopy(bytes, span);
        if (literals_ != nullptr) literals_->Observe(bytes, span, position_, code_.At(op_.old_position), position_ == op_.new_position, position_ + span == stretch_end);
      }
      position_ += span;
      bytes += span;
    }
    last_page_bytes_ = count;
    return count;
  }

  /** The bytes of the page coded last. */
  const uint8_t* page() const { return page_.data() + kBack; }

 private:
  void TakeOp() {
    previous_end_ = op_.new_position + op_.length;
    previous_old_end_ = op_.old_position + op_.length;
    has_op_ = next_op_(op_);
  }

  void CodeCopy(uint8_t* bytes, size_t span) {
    if (residue_ == nullptr) return;
    for (size_t done = 0; done < span;) {
      // What a table says is to be known right after its end.
      const size_t part = rewriter_ == nullptr ? span : tables_.BeforeEnd(position_ + done, span - done);
      CodeCopyPart(bytes + done, part, position_ + done, done > 0);
      done += part;
    }
  }

  void CodeCopyPart(uint8_t* bytes, size_t size, uint64_t position, bool is_cut) {
    constexpr size_t kLead = ReferenceRewriter::kLead;
    const uint64_t within = position - op_.new_position;
    const uint64_t old_position = op_.old_position + within;
    content_->Fetch(static_cast<int64_t>(old_position) - static_cast<int64_t>(kLead), kLead + size + ReferenceRewriter::kTrail, old_.data());
    if (rewriter_ != nullptr) rewriter_->Rewrite(old_.data() + kLead, size, old_position, position, marks_.data(), &learned_, &tables_);
    residue_->Code(*residue_coder_, old_.data() + kLead, marks_.data(), bytes, size, position, is_cut || within == 0, code_.At(old_position), rewriter_);
    if (rewriter_ != nullptr) tables_.Take(position, bytes, size);
  }

  void CodeLiteral(uint8_t* bytes, size_t span) {
    if (literals_ == nullptr) return;
    if (position_ == previous_end_) BeginRun(bytes);
    content_->Fetch(static_cast<int64_t>(previous_old_end_ + (position_ - previous_end_)), span, old_.data());
    const int64_t before = has_op_ ? static_cast<int64_t>(op_.old_position) - static_cast<int64_t>(op_.new_position - position_)
                                   : static_cast<int64_t>(content_->size()) - static_cast<int64_t>(size_ - position_);
    content_->Fetch(before, span, backward_.data());
    if (run_kind_ == CodeKind::kRiscv) return CodeRiscv(bytes, span);
    // Whole words are told highest byte first, what is before and after them is not.
    const WholeWords words(position_, span, run_kind_);
    CodeBytes(bytes, 0, words.begin);
    if (words.end > words.begin) CodeWords(bytes, words.begin, words.end);
    CodeBytes(bytes, words.end, span);
  }

  /** Code is followed by code: what is before a run of literals, or after a file's first one, tells. */
  void BeginRun(const uint8_t* bytes) {
    const bool is_known = previous_end_ > 0 || has_op_;
    const uint64_t old_offset = previous_end_ > 0 ? previous_old_end_ - 1 : op_.old_position;
    run_kind_ = is_known ? code_.At(old_offset) : CodeKind::kNone;
    literals_->BeginRun();
    if (IsX86(run_kind_) || run_kind_ == CodeKind::kRiscv) literals_->BeginCode(run_kind_, bytes, position_);
  }

  void CodeBytes(uint8_t* bytes, size_t from, size_t to) {
    if (to > from) literals_->Code(*literal_coder_, bytes + from, to - from, {old_.data() + from, backward_.data() + from}, position_ + from, 1);
  }

  /** What RISC-V code counts from its own place is told as counted from the file's start. */
  void CodeRiscv(uint8_t* bytes, size_t span) {
    const size_t skip = std::min(span, literals_->LeftOfInstruction());
    for (uint8_t* code : {bytes, old_.data(), backward_.data()}) {
      if (Coder::kEncodes || code != bytes) CountFromStart(code + skip, span - skip, position_ + skip, false);
    }
    CodeBytes(bytes, 0, span);
    CountFromStart(bytes + skip, span - skip, position_ + skip, true);
  }

  void CodeWords(uint8_t* bytes, size_t from, size_t to) {
    const size_t size = to - from;
    std::memcpy(turned_.data(), bytes + from - kMargin, kMargin + size);
    TurnWords(turned_.data(), kMargin + size, run_kind_, position_ + from - kMargin);
    TurnWords(old_.data() + from, size, run_kind_, position_ + from);
    TurnWords(backward_.data() + from, size, run_kind_, position_ + from);
    uint8_t* const words = turned_.data() + kMargin;
    literals_->Code(*literal_coder_, words, size, {old_.data() + from, backward_.data() + from}, position_ + from, WordBytes(run_kind_));
    if (Coder::kEncodes) return;
    TurnWordsBack(words, size, run_kind_, position_ + from);
    std::memcpy(bytes + from, words, size);
  }

  Coder* residue_coder_;
  Coder* literal_coder_;
  Residue* residue_;
  Literals* literals_;
  std::vector<uint8_t> page_, old_, backward_, turned_, marks_;
  ReferenceRewriter* rewriter_ = nullptr;
  LearnedTargets learned_;
  KnownTables tables_;
  CodeRanges code_;
  CodeKind run_kind_ = CodeKind::kNone;  // of the literals at hand
  OldContent* content_ = nullptr;
  NextOp next_op_;
  Op op_;
  bool has_op_ = false;
  uint64_t size_ = 0, position_ = 0, previous_end_ = 0, previous_old_end_ = 0;
  size_t last_page_bytes_ = 0;
};

}  // namespace whittle::codec
