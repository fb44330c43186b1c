#pragma once
// WordPiece (Schuster and Nakajima 2012; BERT's): a word is cut into the longest tokens from its left.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/data/vocabulary.h"

namespace mezzo {

/// Immutable: one may serve several threads, each with a Workspace of its own.
class WordPiece {
 public:
  struct Workspace {
    std::string text;
  };

  /// The `model` of a tokenizer.json, whose vocabulary is read. InputError for what is not served.
  static WordPiece read(const JsonCursor& model, Vocabulary vocabulary);

  /// Appends the ids of `piece`, a word of valid UTF-8, to `ids`: the unknown token alone where it cannot be
  /// cut, or has too many characters. Time grows with its length times the longest token's.
  void encode(std::string_view piece, Workspace& workspace, std::vector<std::int32_t>& ids) const;

 private:
  WordPiece(Vocabulary vocabulary, std::int32_t unknown, std::string prefix, std::size_t longest_word);

  Vocabulary vocabulary_;
  std::int32_t unknown_;
  std::string prefix_;        ///< of tokens that go on with a word
  std::size_t longest_word_;  ///< in characters
  std::size_t longest_token_;
};

}  // namespace mezzo
