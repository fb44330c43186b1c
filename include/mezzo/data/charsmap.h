#pragma once
// SentencePiece's precompiled map of characters (`precompiled_charsmap`: a length, a trie of bytes in Darts'
// double-array form, and NUL-terminated texts), used as Hugging Face tokenizers uses it.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

class CharsMap {
 public:
  /// `base64`: the map as tokenizer.json writes it. `where` names its place. InputError for what is no map.
  CharsMap(std::string_view base64, std::string where);

  /// The text with every grapheme cluster of less than 6 bytes that starts with an entry replaced by that
  /// entry's text, and in all other clusters every character that does. InputError for a damaged trie.
  std::string normalize(std::string_view text) const;

 private:
  /// What the shortest entry that `text` starts with becomes.
  std::optional<std::string_view> find(std::string_view text) const;
  std::uint32_t unit(std::size_t at) const;

  std::string where_;
  std::vector<std::uint32_t> trie_;
  std::string texts_;
};

}  // namespace mezzo
