#include "mezzo/data/task_kind.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

std::int64_t length(const std::vector<std::int32_t>& ids) { return static_cast<std::int64_t>(ids.size()); }

std::int64_t longest_option(const Example& example) {
  std::int64_t longest = 0;
  for (const auto& option : example.options) longest = std::max(longest, length(option));
  return longest;
}

bool is_blank(char c) { return c == ' ' || c == '\t'; }
bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// What `encode` gives, with the place in the errors of the tokenizer.
template <typename Encode>
auto at(const std::string& where, Encode&& encode) {
  try {
    return encode();
  } catch (const InputError& error) {
    throw InputError("{}: {}", where, error.what());
  }
}

}  // namespace

PromptTemplate prompt_of(const TaskConfig& config) {
  if (config.prompt_template)
    return PromptTemplate(parse_template(*config.prompt_template, "data.task.template"));
  return PromptTemplate({{.is_field = true, .text = config.prompt}});
}

std::vector<std::int32_t> ExampleEncoder::answer(const std::string& text, const std::string& where,
                                                 const std::string& what) const {
  std::vector<std::int32_t> ids = at(where, [&] { return tokenizer_.encode_continuation(text); });
  if (ids.empty()) throw InputError("{}: {} has no tokens", where, what);
  return ids;
}

bool ExampleEncoder::takes(std::int64_t tokens, const std::string& where, EncodedRecord& encoded) const {
  if (tokens <= max_length_) return true;
  encoded.counts.overlong = 1;
  switch (overlong_) {
    case Overlong::truncate:
      return true;
    case Overlong::skip:
      encoded.skipped = true;
      return false;
    case Overlong::error:
      throw InputError("{}: {} tokens{}, but data.max_length is {} and data.task.overlong: error", where,
                       tokens, new_tokens_ > 0 ? " with generation.max_new_tokens" : "", max_length_);
  }
  throw Error("data.task.overlong has the unknown value {}", static_cast<int>(overlong_));
}

bool ExampleEncoder::put_prompt(const PromptTemplate& prompt, const std::vector<std::string>& values,
                                const std::string& where, EncodedRecord& encoded) const {
  Example& example = encoded.example;
  const std::int64_t longest = std::max(longest_option(example), new_tokens_);
  std::vector<std::int32_t> ids = at(where, [&] { return prompt.ids(values, tokenizer_); });
  const auto start = tokenizer_.start_token();
  if (start && ids.size() > 1 && ids[1] == *start) encoded.counts.second_start = 1;
  if (!takes(length(ids) + longest, where, encoded)) return false;
  if (length(ids) + longest > max_length_) {
    // One token at least has to stay in front of what is predicted.
    const std::int64_t room = std::max<std::int64_t>(max_length_ - longest, 1);
    ids = at(where, [&] { return prompt.shortened_ids(values, tokenizer_, room); });
    const std::int64_t left = max_length_ - length(ids);
    const std::int64_t needed = std::max<std::int64_t>(new_tokens_, 1);
    if (left < needed) {
      throw InputError("{}: {} tokens are needed at least{}, but data.max_length is {}", where,
                       length(ids) + needed, new_tokens_ > 0 ? " with generation.max_new_tokens" : "",
                       max_length_);
    }
    for (auto& option : example.options) {
      if (length(option) > left) option.resize(static_cast<std::size_t>(left));
    }
  }
  if (ids.empty()) {
    throw InputError("{}: the prompt is empty, and this tokenizer puts no start token before it", where);
  }
  example.prompt = std::move(ids);
  return true;
}

ChoicePrompt::ChoicePrompt(const TaskContext& context)
    : encoder_(context),
      prompt_(parse_template(context.config.prompt_template.value(), "data.task.template")) {
  const auto& calibration = context.config.calibration;
  if (calibration) calibration_.emplace_back(parse_optional_template(*calibration, "data.task.calibration"));
}

std::int64_t ChoicePrompt::fixed_tokens() const {
  return length(prompt_.ids(std::vector<std::string>(prompt_.field_count()), encoder_.tokenizer()));
}

bool ChoicePrompt::put(const nlohmann::json& record, std::span<const std::string> option_texts,
                       const std::string& where, EncodedRecord& encoded) const {
  const std::vector<std::string> values = prompt_.values(record, where);
  const std::string text = prompt_.text(values);
  const bool ends_blank = !text.empty() && is_blank(text.back());
  const bool ends_word = !text.empty() && !ends_blank && text.back() != '\n';
  for (const std::string& option : option_texts) {
    if (option.empty()) continue;
    if (ends_blank && !is_blank(option[0])) encoded.counts.blank_at_border = 1;
    if (ends_word && is_letter_or_digit(option[0])) encoded.counts.no_blank = 1;
  }
  if (!encoder_.put_prompt(prompt_, values, where, encoded)) return false;
  if (calibration_.empty()) return true;
  // Another prompt for the same options: what it loses is lost from its own fields.
  const PromptTemplate& calibration = calibration_[0];
  const std::vector<std::string> its_values = calibration.values(record, where);
  const std::int64_t room = encoder_.max_length() - longest_option(encoded.example);
  encoded.example.calibration =
      at(where, [&] { return calibration.shortened_ids(its_values, encoder_.tokenizer(), room); });
  if (encoded.example.calibration.empty() || length(encoded.example.calibration) > room) {
    throw InputError(
        "{}: data.task.calibration has {} tokens, expected {} at most with data.max_length {}, and "
        "one at least",
        where, encoded.example.calibration.size(), room, encoder_.max_length());
  }
  return true;
}

}  // namespace mezzo
