#pragma once
// Prompt templates: how the fields of a data file's line become the text before an option.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// A text in which fields of a line are filled in.
class PromptTemplate {
 public:
  explicit PromptTemplate(const std::vector<TemplatePart>& parts);

  /// The names of the fields, each once, in the order of their first places.
  const std::vector<std::string>& fields() const { return fields_; }
  /// The ids of the text with values[i] at each place of fields()[i], behind the tokenizer's start token if
  /// it has one. A text of more than `max_tokens` is shortened: the first field loses tokens from its left,
  /// then the next one; what is left is encoded anew, so that the ids are those of a text that could have
  /// stood in the file. The template's own words stay, so that there may be more than `max_tokens` ids still.
  std::vector<std::int32_t> encode(std::vector<std::string> values, const Tokenizer& tokenizer,
                                   std::int64_t max_tokens) const;

 private:
  /// A piece of the template's own words, and the field behind it.
  struct Part {
    std::string text;
    std::size_t field;  ///< index into fields_
  };

  std::string render(std::span<const std::string> values) const;

  std::vector<Part> parts_;
  std::string tail_;  ///< the words behind the last field
  std::vector<std::string> fields_;
};

}  // namespace mezzo
