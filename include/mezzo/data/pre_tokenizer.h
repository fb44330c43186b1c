#pragma once
// Pre-tokenizers: how a text is cut before byte-pair encoding merges within the pieces, and never across
// them.
#include <cstddef>
#include <functional>
#include <string_view>
#include <variant>
#include <vector>

#include "mezzo/data/pattern.h"

namespace mezzo {

/// Puts a space before a piece that does not start with one.
struct PrefixSpace {};

/// Cuts at the matches of a pattern.
struct Split {
  /// What becomes of a match. With `invert`, what lies between the matches counts as matches and the reverse.
  enum class Behavior {
    isolated,              ///< a piece of its own
    removed,               ///< dropped
    merged_with_previous,  ///< the end of the piece before it, unless that is a match too
    merged_with_next,      ///< the start of the piece behind it, unless that is a match too
    contiguous,            ///< matches that touch are one piece
  };
  Pattern pattern;
  Behavior behavior = Behavior::isolated;
  bool invert = false;
};

/// Steps that each cut all pieces of the step before.
class PreTokenizer {
 public:
  using Step = std::variant<PrefixSpace, Split>;
  using Sink = std::function<void(std::string_view)>;

  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  /// Gives the pieces of `text` (valid UTF-8) to `sink` in order. None is empty, and none outlives the call.
  void split(std::string_view text, const Sink& sink) const { run(0, text, sink); }

 private:
  void run(std::size_t step, std::string_view piece, const Sink& sink) const;

  std::vector<Step> steps_;
};

}  // namespace mezzo
