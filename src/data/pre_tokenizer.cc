#include "mezzo/data/pre_tokenizer.h"

#include <string>

namespace mezzo {
namespace {

/// Joins the segments of a text, matches and what lies between them, into pieces.
class Joiner {
 public:
  Joiner(const Split& split, std::string_view text, const PreTokenizer::Sink& sink)
      : split_(split), text_(text), sink_(sink) {}

  /// The segment from the end of the last one to `end`.
  void add(std::size_t end, bool is_match) {
    is_match ^= split_.invert;
    if (!joins(is_match)) flush();
    end_ = end;
    last_is_match_ = is_match;
    any_ = true;
    if (split_.behavior == Split::Behavior::removed && is_match) begin_ = end_;
  }

  /// Ends the piece; one without bytes is dropped.
  void flush() {
    if (begin_ < end_) sink_(text_.substr(begin_, end_ - begin_));
    begin_ = end_;
  }

 private:
  /// Whether the next segment belongs to the piece of the last one.
  bool joins(bool is_match) const {
    switch (split_.behavior) {
      case Split::Behavior::isolated:
      case Split::Behavior::removed:
        return false;
      case Split::Behavior::merged_with_previous:
        return any_ && is_match && !last_is_match_;
      case Split::Behavior::merged_with_next:
        return any_ && !is_match && last_is_match_;
      case Split::Behavior::contiguous:
        return any_ && is_match == last_is_match_;
    }
    return false;
  }

  const Split& split_;
  std::string_view text_;
  const PreTokenizer::Sink& sink_;
  std::size_t begin_ = 0;  ///< of the current piece
  std::size_t end_ = 0;    ///< of the last segment
  bool last_is_match_ = false;
  bool any_ = false;  ///< whether there was a segment yet
};

void split_piece(const Split& split, std::string_view text, const PreTokenizer::Sink& sink) {
  Joiner joiner(split, text, sink);
  std::size_t end = 0;
  for (PatternSearch search(split.pattern, text); search.next(); end = search.end()) {
    if (end < search.begin()) joiner.add(search.begin(), false);
    joiner.add(search.end(), true);
  }
  if (end < text.size()) joiner.add(text.size(), false);
  joiner.flush();
}

}  // namespace

void PreTokenizer::run(std::size_t step, std::string_view piece, const Sink& sink) const {
  if (step == steps_.size()) return sink(piece);
  const auto next = [&](std::string_view part) { run(step + 1, part, sink); };
  if (const auto* split = std::get_if<Split>(&steps_[step])) {
    split_piece(*split, piece, next);
  } else if (piece.starts_with(' ')) {
    next(piece);
  } else {
    next(' ' + std::string(piece));
  }
}

}  // namespace mezzo
