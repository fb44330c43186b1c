#pragma once
// Decoders: how the texts of tokens become a text again.
#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "mezzo/data/pattern.h"
#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// Steps that each rewrite a list of texts, one a token at first. They make what Hugging Face makes, with two
/// exceptions that keep the bytes that ids stand for: bytes that are not UTF-8 stay as they are, and an added
/// token is its own text in the byte-level alphabet too.
class TokenDecoder {
 public:
  struct Token {
    std::string text;
    bool is_added = false;
  };
  struct ByteLevel {};
  struct ByteFallback {};  ///< tokens <0x00> ... <0xFF> become bytes
  struct Fuse {};          ///< one text from here on
  struct Strip {           ///< drops up to so many of a character at each text's ends
    std::string character;
    std::size_t start;
    std::size_t stop;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct Metaspace {  ///< marks become spaces; those of the first token are dropped when one was put there
    std::string mark;
    bool drops_first;
  };
  struct WordPiece {
    std::string prefix;  ///< of tokens that go on with a word
    bool cleans_up;      ///< drops spaces before punctuation
  };
  struct WordEnd {  ///< a suffix of words becomes a space
    std::string suffix;
  };
  using Step = std::variant<ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, WordPiece, WordEnd>;

  /// What stands at `decoder` of a tokenizer.json. InputError for what is not served.
  static TokenDecoder read(const JsonCursor& field);

  std::string decode(std::vector<Token> tokens) const;
  bool has_byte_level() const;

 private:
  void read_step(const JsonCursor& field);

  std::vector<Step> steps_;
};

}  // namespace mezzo
