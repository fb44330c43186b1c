#pragma once
// Prompt templates: how the fields of a data file's record become the text before an option, or the option.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/field_path.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// A text in which fields of a record are filled in.
class PromptTemplate {
 public:
  explicit PromptTemplate(const std::vector<TemplatePart>& parts);

  /// How many fields it has, each counted once.
  std::size_t field_count() const { return fields_.size(); }
  /// The fields' texts in a record, each once, in the order of their first places. InputError naming `where`
  /// and the field.
  std::vector<std::string> values(const nlohmann::json& record, const std::string& where) const;
  /// The text with `values` in the fields' places.
  std::string text(std::span<const std::string> values) const;
  /// The ids of that text, behind the tokenizer's start token if it has one.
  std::vector<std::int32_t> ids(std::span<const std::string> values, const Tokenizer& tokenizer) const;
  /// The ids of a text that is shortened to `max_tokens`: the first field loses tokens from its left, then
  /// the next one; what is left is encoded anew, so that the ids are those of a text that could have stood in
  /// the file. The template's own words stay, so that there may be more than `max_tokens` ids still.
  std::vector<std::int32_t> shortened_ids(std::vector<std::string> values, const Tokenizer& tokenizer,
                                          std::int64_t max_tokens) const;

 private:
  /// A piece of the template's own words, and the field behind it.
  struct Part {
    std::string text;
    std::size_t field;  ///< index into fields_
  };

  std::vector<Part> parts_;
  std::string tail_;  ///< the words behind the last field
  std::vector<FieldPath> fields_;
};

}  // namespace mezzo
