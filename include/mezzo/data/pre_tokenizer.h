#pragma once
// Pre-tokenizers: how a text is cut before the model encodes each piece by itself.
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mezzo/data/pattern.h"
#include "mezzo/data/piece.h"
#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// Puts a space before a piece that does not start with one.
struct PrefixSpace {};

/// Writes each byte as a character of the byte-level alphabet (byte_level.h).
struct ByteAlphabet {};

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

/// SentencePiece's space mark: spaces become marks.
struct Metaspace {
  enum class Prepend {
    always,  ///< a mark before each piece without one
    first,   ///< before the one where the text begins
    never,
  };
  std::string mark;
  Prepend prepend = Prepend::always;
  bool split = true;  ///< every mark starts a piece
};

/// Steps that each cut all pieces of the step before. Without steps the text is one piece.
class PreTokenizer {
 public:
  using Step = std::variant<PrefixSpace, ByteAlphabet, Split, Metaspace>;
  using Sink = std::function<void(std::string_view, PieceStart)>;

  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}
  /// What stands at `pre_tokenizer` of a tokenizer.json. InputError for what is not served.
  static PreTokenizer read(const JsonCursor& field);

  /// Gives the pieces of `text` (valid UTF-8) to `sink` in order, and how each begins. None is empty, and
  /// none outlives the call. Nothing is put before the piece where a continuation begins.
  void split(std::string_view text, PieceStart start, const Sink& sink) const { run(0, text, start, sink); }

 private:
  void run(std::size_t step, std::string_view piece, PieceStart start, const Sink& sink) const;

  std::vector<Step> steps_;
};

}  // namespace mezzo
