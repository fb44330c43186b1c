#include "mezzo/data/task.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/data/chat.h"
#include "mezzo/data/records.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

/// The text of a label as a config writes it: a string as it is, numbers and booleans as JSON prints them.
std::string label_text(const nlohmann::json& value, const std::string& where, const std::string& field) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number_integer()) return value.dump();
  throw InputError("{}: field {}: found {}, expected a string, an integer or a boolean", where, quote(field),
                   value.type_name());
}

std::string string_field(const nlohmann::json& record, const std::string& field, const std::string& where) {
  const auto found = record.find(field);
  if (found == record.end()) throw missing_field(record, field, where);
  if (!found->is_string()) {
    throw InputError("{}: field {}: found {}, expected a string", where, quote(field), found->type_name());
  }
  return found->get<std::string>();
}

PromptTemplate template_of(const TaskConfig& config) {
  if (config.type == TaskType::chat) return PromptTemplate({});
  if (config.type == TaskType::completion) return PromptTemplate({{.is_field = true, .text = config.prompt}});
  return PromptTemplate(parse_template(config.prompt_template.value(), "data.task.template"));
}

/// What `encode` gives, with the line in the errors of the tokenizer.
template <typename Encode>
std::vector<std::int32_t> ids_at(const std::string& where, Encode&& encode) {
  try {
    return encode();
  } catch (const InputError& error) {
    throw InputError("{}: {}", where, error.what());
  }
}

std::int64_t length(const std::vector<std::int32_t>& ids) { return static_cast<std::int64_t>(ids.size()); }

}  // namespace

Task::Task(const TaskConfig& config, const Tokenizer& tokenizer, std::int64_t max_length,
           std::optional<ChatTemplate> chat)
    : type_(config.type),
      loss_(config.loss),
      tokenizer_(tokenizer),
      max_length_(max_length),
      chat_(std::move(chat)),
      template_(template_of(config)),
      target_field_(config.type == TaskType::classification ? config.label : config.completion) {
  if (!classifies()) {
    loss_ = TaskLoss::language_model;
    return;
  }
  for (const Verbalizer& verbalizer : config.verbalizers) {
    labels_.push_back(verbalizer.label);
    option_texts_.push_back(verbalizer.option);
    options_.push_back(tokenizer.encode_continuation(verbalizer.option));
    if (options_.back().empty()) {
      throw UsageError("data.task.verbalizers: option {} of label {} has no tokens", quote(verbalizer.option),
                       quote(verbalizer.label));
    }
    longest_option_ = std::max(longest_option_, length(options_.back()));
  }
  // What stays however much a field loses must fit by itself.
  const std::vector<std::string> nothing(template_.fields().size());
  constexpr std::int64_t no_limit = std::numeric_limits<std::int64_t>::max();
  const std::int64_t needed = length(template_.encode(nothing, tokenizer, no_limit)) + longest_option_;
  if (needed > max_length_) {
    throw UsageError(
        "data.max_length: {} tokens, but the start token, the template's own words and the longest "
        "option need {}",
        max_length_, needed);
  }
}

std::vector<std::int32_t> Task::encode_prompt(std::vector<std::string> values, std::int64_t longest_option,
                                              const std::string& where) const {
  const std::vector<std::int32_t> ids = ids_at(
      where, [&] { return template_.encode(std::move(values), tokenizer_, max_length_ - longest_option); });
  if (length(ids) + longest_option > max_length_) {
    throw InputError("{}: {} tokens are needed at least, but data.max_length is {}", where,
                     length(ids) + longest_option, max_length_);
  }
  if (ids.empty()) {
    throw InputError("{}: the prompt is empty, and this tokenizer puts no start token before it", where);
  }
  return ids;
}

namespace {

/// The first tokens that count are the beginning of the one option, what is before them is the prompt.
Example example_of(ChatTokens tokens) {
  const std::int32_t begin = tokens.counted.front().first;
  const auto border = tokens.ids.begin() + begin;
  for (auto& [first, last] : tokens.counted) {
    first -= begin;
    last -= begin;
  }
  return {.prompt = {tokens.ids.begin(), border},
          .options = {{border, tokens.ids.end()}},
          .label = 0,
          .counted = std::move(tokens.counted)};
}

}  // namespace

Example Task::encode(const nlohmann::json& record, const std::string& where) const {
  if (type_ == TaskType::chat)
    return example_of(chat_tokens(messages_of(record, where), chat_.value(), tokenizer_, max_length_, where));
  std::vector<std::string> values;
  for (const std::string& field : template_.fields()) values.push_back(string_field(record, field, where));

  Example example;
  if (classifies()) {
    const auto found = record.find(target_field_);
    if (found == record.end()) throw missing_field(record, target_field_, where);
    const std::string label = label_text(*found, where, target_field_);
    const auto known = std::find(labels_.begin(), labels_.end(), label);
    if (known == labels_.end()) {
      throw InputError("{}: field {}: label {} is not one of data.task.verbalizers ({})", where,
                       quote(target_field_), quote(label), fmt::join(labels_, ", "));
    }
    example.label = static_cast<std::int32_t>(known - labels_.begin());
    example.options = options_;
    example.prompt = encode_prompt(std::move(values), longest_option_, where);
  } else {
    const std::string text = string_field(record, target_field_, where);
    std::vector<std::int32_t> completion =
        ids_at(where, [&] { return tokenizer_.encode_continuation(text); });
    if (completion.empty()) throw InputError("{}: field {} has no tokens", where, quote(target_field_));
    example.prompt = encode_prompt(std::move(values), length(completion), where);
    example.options.push_back(std::move(completion));
  }
  return example;
}

std::vector<Example> Task::read(const std::string& path, DataFormat format) const {
  std::vector<Example> examples;
  read_records(path, format, [&](const nlohmann::json& record, const std::string& where) {
    examples.push_back(encode(record, where));
  });
  return examples;
}

}  // namespace mezzo
