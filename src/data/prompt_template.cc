#include "mezzo/data/prompt_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzo/core/utf8.h"

namespace mezzo {

PromptTemplate::PromptTemplate(const std::vector<TemplatePart>& parts) {
  std::string words;
  for (const TemplatePart& part : parts) {
    if (!part.is_field) {
      words += part.text;
      continue;
    }
    const FieldPath field(part.text);
    const auto known = std::ranges::find(fields_, field);
    parts_.push_back({words, static_cast<std::size_t>(known - fields_.begin())});
    if (known == fields_.end()) fields_.push_back(field);
    words.clear();
  }
  tail_ = words;
}

std::vector<std::string> PromptTemplate::values(const nlohmann::json& record,
                                                const std::string& where) const {
  std::vector<std::string> values;
  for (const FieldPath& field : fields_) values.push_back(field.text_in(record, where));
  return values;
}

std::string PromptTemplate::text(std::span<const std::string> values) const {
  std::string text;
  for (const Part& part : parts_) text += part.text + values[part.field];
  return text + tail_;
}

std::vector<std::int32_t> PromptTemplate::ids(std::span<const std::string> values,
                                              const Tokenizer& tokenizer) const {
  std::vector<std::int32_t> ids = tokenizer.encode(text(values), false);
  if (const auto start = tokenizer.start_token()) ids.insert(ids.begin(), *start);
  return ids;
}

std::vector<std::int32_t> PromptTemplate::shortened_ids(std::vector<std::string> values,
                                                        const Tokenizer& tokenizer,
                                                        std::int64_t max_tokens) const {
  std::vector<std::int32_t> all = ids(values, tokenizer);
  for (std::size_t field = 0; field < values.size();) {
    const std::int64_t excess = static_cast<std::int64_t>(all.size()) - max_tokens;
    if (excess <= 0) break;
    // What is cut is saved at each place of the field.
    const auto places = std::ranges::count(parts_, field, &Part::field);
    const auto cut_tokens = static_cast<std::size_t>((excess + places - 1) / places);
    std::string& value = values[field];
    const std::vector<std::int32_t> tokens = tokenizer.encode(value, false);
    if (tokens.size() <= cut_tokens) {
      value.clear();
      ++field;
    } else {
      std::size_t cut = tokenizer.decode(std::span(tokens).first(cut_tokens)).size();
      while (cut < value.size() && continues_character(value[cut])) ++cut;
      value.erase(0, std::max<std::size_t>(cut, 1));
    }
    all = ids(values, tokenizer);
  }
  return all;
}

}  // namespace mezzo
