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

#include "mezzo/data/pattern.h"

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

/// Finds added tokens as Hugging Face does: the ones that are not `normalized` first, in the whole text; then
/// the others, in each piece between. In either pass the leftmost match wins, and of several there the
/// longest. A match that `single_word` rejects is gone over as a whole.
class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);

  /// Gives the text to the two functions in order: a piece of plain text (never empty), or an added token's
  /// id. Time grows with the text's length times the longest token's.
  void split(std::string_view text, const std::function<void(std::string_view)>& on_text,
             const std::function<void(std::int32_t)>& on_token) const;

 private:
  struct Pass {
    std::vector<AddedToken> tokens;        ///< in the bytewise order of their contents
    std::array<bool, 256> starts_token{};  ///< by first byte

    const AddedToken* longest_at(std::string_view text) const;
  };

  bool touches_word(std::string_view before, std::string_view after) const;
  void split(const Pass& pass, std::string_view text, const std::function<void(std::string_view)>& on_text,
             const std::function<void(std::int32_t)>& on_token) const;

  Pass verbatim_;
  Pass normalized_;
  std::optional<Pattern> word_;  ///< a word character, where a token needs to know
};

}  // namespace mezzo
