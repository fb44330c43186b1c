#include "mezzo/data/pre_tokenizer.h"

#include <algorithm>

#include "mezzo/core/error.h"
#include "mezzo/data/byte_level.h"

namespace mezzo {
namespace {

/// The pattern that the ByteLevel pre-tokenizer brings along: GPT-2's.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What Rust calls white space and punctuation, and what its regular expressions call words (Unicode's UTS 18,
// annex C; Oniguruma's \w has no joiners and some numerals).
constexpr std::string_view white_space = R"(\p{White_Space})";
constexpr std::string_view punctuation = R"([!-/:-@\[-`{-~\p{P}])";
constexpr std::string_view words = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+)"
                                   R"(|[^\p{White_Space}\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+)";

constexpr std::size_t max_steps = 64;  ///< each is a call inside the one before

using Behavior = Split::Behavior;

/// Takes a piece and whether it begins where the text that was cut begins.
using PieceSink = std::function<void(std::string_view, bool)>;

/// Joins the segments of a text, matches and what lies between them, into pieces.
class Joiner {
 public:
  Joiner(Behavior behavior, bool invert, std::string_view text, const PieceSink& sink)
      : behavior_(behavior), invert_(invert), text_(text), sink_(sink) {}

  /// The segment from the end of the last one to `end`.
  void add(std::size_t end, bool is_match) {
    is_match ^= invert_;
    if (!joins(is_match)) flush();
    end_ = end;
    last_is_match_ = is_match;
    any_ = true;
    if (behavior_ == Behavior::removed && is_match) begin_ = end_;
  }

  /// Ends the piece; one without bytes is dropped.
  void flush() {
    if (begin_ < end_) sink_(text_.substr(begin_, end_ - begin_), begin_ == 0);
    begin_ = end_;
  }

 private:
  /// Whether the next segment belongs to the piece of the last one.
  bool joins(bool is_match) const {
    switch (behavior_) {
      case Behavior::isolated:
      case Behavior::removed:
        return false;
      case Behavior::merged_with_previous:
        return any_ && is_match && !last_is_match_;
      case Behavior::merged_with_next:
        return any_ && !is_match && last_is_match_;
      case Behavior::contiguous:
        return any_ && is_match == last_is_match_;
    }
    return false;
  }

  Behavior behavior_;
  bool invert_;
  std::string_view text_;
  const PieceSink& sink_;
  std::size_t begin_ = 0;  ///< of the current piece
  std::size_t end_ = 0;    ///< of the last segment
  bool last_is_match_ = false;
  bool any_ = false;  ///< whether there was a segment yet
};

void split_piece(const Split& split, std::string_view text, const PieceSink& sink) {
  Joiner joiner(split.behavior, split.invert, text, sink);
  std::size_t end = 0;
  for (PatternSearch search(split.pattern, text); search.next(); end = search.end()) {
    if (end < search.begin()) joiner.add(search.begin(), false);
    joiner.add(search.end(), true);
  }
  if (end < text.size()) joiner.add(text.size(), false);
  joiner.flush();
}

void split_at_marks(std::string_view mark, std::string_view text, const PieceSink& sink) {
  Joiner joiner(Behavior::merged_with_next, false, text, sink);
  std::size_t end = 0;
  for (std::size_t at; (at = text.find(mark, end)) != std::string_view::npos; end = at + mark.size()) {
    if (end < at) joiner.add(at, false);
    joiner.add(at + mark.size(), true);
  }
  if (end < text.size()) joiner.add(text.size(), false);
  joiner.flush();
}

std::string with_marks(const Metaspace& metaspace, std::string_view piece, PieceStart start) {
  std::string marked;
  for (const char c : piece) {
    if (c == ' ') {
      marked += metaspace.mark;
    } else {
      marked += c;
    }
  }
  const bool prepends = metaspace.prepend == Metaspace::Prepend::always
                            ? start != PieceStart::continuation
                            : metaspace.prepend == Metaspace::Prepend::first && start == PieceStart::text;
  if (prepends && !marked.starts_with(metaspace.mark)) marked.insert(0, metaspace.mark);
  return marked;
}

// ---- reading ------------------------------------------------------------------------------------------

Behavior read_behavior(const JsonCursor& field) {
  constexpr std::pair<const char*, Behavior> behaviors[] = {
      {"Isolated", Behavior::isolated},
      {"Removed", Behavior::removed},
      {"MergedWithPrevious", Behavior::merged_with_previous},
      {"MergedWithNext", Behavior::merged_with_next},
      {"Contiguous", Behavior::contiguous}};
  const std::string name = field.text();
  const auto behavior =
      std::ranges::find_if(behaviors, [&](const auto& known) { return name == known.first; });
  if (behavior == std::end(behaviors)) {
    field.fail("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
  }
  return behavior->second;
}

Metaspace read_metaspace(const JsonCursor& field) {
  Metaspace metaspace{.mark = field["replacement"].text(), .split = field["split"].boolean_or(true)};
  if (metaspace.mark.empty()) field["replacement"].fail("a character");
  // Files of before 2024 have add_prefix_space in the place of prepend_scheme.
  const JsonCursor scheme = field["prepend_scheme"];
  const JsonCursor prefix = field["add_prefix_space"];
  const std::string name = scheme.text_or(prefix.boolean_or(true) ? "always" : "never");
  if (name == "always") {
    metaspace.prepend = Metaspace::Prepend::always;
  } else if (name == "first") {
    metaspace.prepend = Metaspace::Prepend::first;
  } else if (name == "never") {
    metaspace.prepend = Metaspace::Prepend::never;
  } else {
    scheme.fail("always, first or never");
  }
  if (!prefix.boolean_or(true) && metaspace.prepend != Metaspace::Prepend::never) {
    prefix.fail(fmt::format("true, beside the prepend_scheme \"{}\"", name));
  }
  return metaspace;
}

void read_steps(const JsonCursor& field, std::vector<PreTokenizer::Step>& steps) {
  if (field.is_unset()) return;
  const auto split = [&](std::string_view pattern, Behavior behavior, bool invert = false) {
    steps.emplace_back(Split{Pattern(pattern, field.where()), behavior, invert});
  };
  const std::string type = field["type"].text();
  if (type == "Sequence") {
    for (const JsonCursor& element : field["pretokenizers"].elements()) read_steps(element, steps);
  } else if (type == "ByteLevel") {
    if (field["add_prefix_space"].boolean()) steps.emplace_back(PrefixSpace{});
    if (field["use_regex"].boolean_or(true)) split(gpt2_pattern, Behavior::isolated);
    steps.emplace_back(ByteAlphabet{});
  } else if (type == "Split") {
    steps.emplace_back(
        Split{Pattern::read(field["pattern"]), read_behavior(field["behavior"]), field["invert"].boolean()});
  } else if (type == "Digits") {
    split(R"(\p{N})", field["individual_digits"].boolean() ? Behavior::isolated : Behavior::contiguous);
  } else if (type == "Punctuation") {
    const JsonCursor behavior = field["behavior"];
    split(punctuation, behavior.is_unset() ? Behavior::isolated : read_behavior(behavior));
  } else if (type == "Whitespace") {
    split(words, Behavior::removed, /*invert=*/true);
  } else if (type == "WhitespaceSplit") {
    split(white_space, Behavior::removed);
  } else if (type == "BertPreTokenizer") {
    split(white_space, Behavior::removed);
    split(punctuation, Behavior::isolated);
  } else if (type == "Metaspace") {
    steps.emplace_back(read_metaspace(field));
  } else {
    field.refuse(
        "ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, BertPreTokenizer or "
        "a Sequence of these");
  }
}

}  // namespace

PreTokenizer PreTokenizer::read(const JsonCursor& field) {
  std::vector<Step> steps;
  read_steps(field, steps);
  if (steps.size() > max_steps) {
    throw InputError("{} has {} steps, which is not served; expected {} at most", field.where(), steps.size(),
                     max_steps);
  }
  return PreTokenizer(std::move(steps));
}

void PreTokenizer::run(std::size_t step, std::string_view piece, PieceStart start, const Sink& sink) const {
  if (step == steps_.size()) return sink(piece, start);
  const PieceSink next = [&](std::string_view part, bool is_first) {
    run(step + 1, part, is_first ? start : PieceStart::middle, sink);
  };
  if (const auto* split = std::get_if<Split>(&steps_[step])) {
    split_piece(*split, piece, next);
  } else if (const auto* metaspace = std::get_if<Metaspace>(&steps_[step])) {
    const std::string marked = with_marks(*metaspace, piece, start);
    metaspace->split ? split_at_marks(metaspace->mark, marked, next) : next(marked, true);
  } else if (std::holds_alternative<ByteAlphabet>(steps_[step])) {
    next(byte_level_text(piece), true);
  } else if (piece.starts_with(' ') || start == PieceStart::continuation) {
    next(piece, true);
  } else {
    next(' ' + std::string(piece), true);
  }
}

}  // namespace mezzo
