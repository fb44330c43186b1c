#pragma once
// Normalizers: how a text is rewritten before it is cut and encoded.
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mezzo/data/charsmap.h"
#include "mezzo/data/pattern.h"
#include "mezzo/data/piece.h"
#include "mezzo/data/unicode.h"
#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// Steps that each rewrite what the step before gives. Without steps the text stays as it is.
class Normalizer {
 public:
  struct Strip {  ///< drops white space at the ends
    bool left;
    bool right;
  };
  struct Prepend {  ///< puts a text before one that is not empty
    std::string text;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct LowerCase {};
  struct StripAccents {};  ///< drops all marks
  struct Bert {
    bool clean_text;           ///< drops control characters; other white space becomes a space
    bool separate_ideographs;  ///< spaces around Chinese characters
    bool strip_accents;        ///< drops the nonspacing marks of the decomposed text
    bool lower_case;
  };
  struct ByteAlphabet {};  ///< writes each byte as a character (byte_level.h)
  using Step = std::variant<NormalForm, Strip, Prepend, Replace, LowerCase, StripAccents, Bert, CharsMap,
                            ByteAlphabet>;

  /// What stands at `normalizer` of a tokenizer.json. InputError for what is not served.
  static Normalizer read(const JsonCursor& field);

  bool empty() const { return steps_.empty(); }
  /// `text` is valid UTF-8. A continuation keeps the white space that it starts with, and gets nothing put
  /// before it. `start` becomes `middle` where the first characters are dropped, as in Hugging Face.
  std::string normalize(std::string_view text, PieceStart& start) const;

 private:
  void read_step(const JsonCursor& field);

  std::vector<Step> steps_;
};

}  // namespace mezzo
