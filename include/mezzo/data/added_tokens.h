#pragma once
// Added tokens: strings of a tokenizer.json that become one id wherever they stand in a text, before it is
// split and encoded any further.
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/data/normalizer.h"
#include "mezzo/data/pattern.h"
#include "mezzo/data/piece.h"

namespace mezzo {

/// An entry of tokenizer.json's `added_tokens`. (`special` says nothing about encoding.)
struct AddedToken {
  std::int32_t id = 0;
  std::string content;       ///< not empty
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< swallows the white space before it
  bool rstrip = false;       ///< swallows the white space behind it
  bool normalized = true;    ///< looked for only in what the others leave
};

/// What is looked for: the content, normalized if the token is.
std::string sought_text(const AddedToken& token, const Normalizer& normalizer);

/// Finds added tokens as Hugging Face does: the ones that are not `normalized` first, in the whole text; then
/// the others, in each piece between, which is normalized before as their contents are. In either pass the
/// leftmost match wins, and of several there the longest. A match that `single_word` rejects is gone over as
/// a whole.
class AddedTokens {
 public:
  using OnText = std::function<void(std::string_view, PieceStart)>;
  using OnToken = std::function<void(std::int32_t)>;

  AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer);

  /// Gives the text, which begins at `start`, to the two functions in order: a piece of normalized text
  /// (never empty) and how it begins, or an added token's id. Time grows with the text's length times the
  /// longest token's.
  void split(std::string_view text, PieceStart start, const OnText& on_text, const OnToken& on_token) const;

 private:
  struct Pass {
    std::vector<AddedToken> tokens;        ///< in the bytewise order of their contents
    std::array<bool, 256> starts_token{};  ///< by first byte

    const AddedToken* longest_at(std::string_view text) const;
  };

  bool touches_word(std::string_view before, std::string_view after) const;
  void split(const Pass& pass, std::string_view text, PieceStart start, const OnText& on_text,
             const OnToken& on_token) const;

  Normalizer normalizer_;
  Pass verbatim_;
  Pass normalized_;
  std::optional<Pattern> word_;  ///< a word character, where a token needs to know
};

}  // namespace mezzo
