#pragma once
// The regular expressions of tokenizer.json. They are written for Oniguruma (its own syntax, Unicode 16),
// which Hugging Face tokenizers uses, and run here by PCRE2, which reads some of them in another way: so a
// pattern is parsed, what means the same is kept, what differs is rewritten, and what cannot be rewritten is
// refused by name.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace mezzo {

/// A compiled pattern. Immutable: one may serve several threads.
class Pattern {
 public:
  /// The interpreter serves where the system forbids code made at run time, and what outgrows the compiled
  /// code's stack.
  enum class Engine { compiled, interpreter };

  /// `where` names the pattern's place in messages, such as "DIR/tokenizer.json:
  /// pre_tokenizer.pattern.Regex". InputError for a pattern that is wrong or not served.
  Pattern(std::string_view oniguruma, std::string where, Engine engine = Engine::compiled);
  /// Matches `text` as it stands.
  static Pattern literal(std::string_view text, std::string where);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

 private:
  friend class PatternSearch;
  struct Compiled;
  explicit Pattern(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

/// Walks over the matches of a pattern in a text, leftmost first, without overlap; an empty match right
/// behind another match is passed over. Both must outlive the search, and the text must be valid UTF-8.
class PatternSearch {
 public:
  PatternSearch(const Pattern& pattern, std::string_view text);
  ~PatternSearch();

  /// Goes on to the next match, if there is one. InputError when the pattern needs more steps or memory than
  /// 64 steps and 256 bytes a byte of text (and a constant).
  bool next();
  std::size_t begin() const { return begin_; }  ///< of the match, in bytes
  std::size_t end() const { return end_; }

 private:
  struct State;
  const Pattern::Compiled& pattern_;
  std::string_view text_;
  std::unique_ptr<State> state_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool matched_ = false;  ///< whether there was a match before, ending at end_
};

}  // namespace mezzo
