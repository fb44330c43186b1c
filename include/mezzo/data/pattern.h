#pragma once
// Regular expressions, those of tokenizer.json and of rewards, run by Oniguruma: the engine, syntax and
// options of Hugging Face tokenizers. A property such as \p{L} knows the characters of the installed
// library's Unicode (docs/decisions/oniguruma.md).
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// The name and version of the library that runs patterns, such as "Oniguruma 6.9.8".
std::string pattern_library();

/// A compiled pattern. Immutable: one may serve several threads.
class Pattern {
 public:
  /// `where` names the pattern's place in messages, such as "DIR/tokenizer.json:
  /// pre_tokenizer.pattern.Regex". InputError for a pattern that does not compile.
  Pattern(std::string_view source, std::string where);
  /// Matches `text` as it stands.
  static Pattern literal(std::string_view text, std::string where);
  /// What stands at `field` of a tokenizer.json: {"Regex": ...} or {"String": ...}.
  static Pattern read(const JsonCursor& field);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  /// How many groups it captures.
  int groups() const;

 private:
  friend class PatternSearch;
  struct Compiled;
  explicit Pattern(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

/// Walks over the matches of a pattern in a text, leftmost first, without overlap; an empty match right
/// behind another match is passed over. Both must outlive the search.
class PatternSearch {
 public:
  /// InputError for a text that is not UTF-8, and for one of 2 GiB or more.
  PatternSearch(const Pattern& pattern, std::string_view text);
  ~PatternSearch();

  /// Goes on to the next match, if there is one. InputError when that takes more than 64 steps back a byte of
  /// text (and a million), or more than 6 places to go back to (and a million; 32 bytes each).
  bool next();
  std::size_t begin() const { return begin_; }  ///< of the match, in bytes
  std::size_t end() const { return end_; }
  /// What group `number`, from 1 on, holds of the match; none where it has no part in it.
  std::optional<std::string_view> group(int number) const;

 private:
  struct State;
  const Pattern::Compiled& pattern_;
  std::string_view text_;
  std::unique_ptr<State> state_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool matched_ = false;  ///< whether there was a match before, ending at end_
};

/// `text` with all matches of the pattern replaced.
std::string replace(const Pattern& pattern, std::string_view text, std::string_view content);

}  // namespace mezzo
