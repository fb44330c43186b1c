#pragma once
// A template's source as tokens, with the white space around its tags taken away as transformers' environment
// does: trim_blocks and lstrip_blocks hold, and one line feed at the end of the source is dropped.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo::jinja {

struct Token {
  enum class Kind {
    data,            ///< text between tags
    variable_begin,  ///< {{
    variable_end,
    block_begin,  ///< {%
    block_end,
    name,
    text,  ///< a literal, its escapes resolved
    whole,
    number,
    op,  ///< an operator or a bracket
    end  ///< of the source
  };
  Kind kind = Kind::end;
  std::string text;  ///< of data, names, literals and operators
  std::int64_t whole = 0;
  double number = 0;
  std::size_t line = 1;
};

/// What is wrong with the source, and in which line.
struct SourceProblem {
  std::size_t line;
  std::string message;
};

/// `source` is valid UTF-8. Throws SourceProblem.
std::vector<Token> tokens_of(std::string_view source);

}  // namespace mezzo::jinja
