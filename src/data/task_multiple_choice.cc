// Multiple choice: a prompt and options of the example's own, as many as it has.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "mezzo/core/error.h"
#include "mezzo/data/task_kind.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

class MultipleChoice final : public TaskKind {
 public:
  explicit MultipleChoice(const TaskContext& context);
  EncodedRecord encode(const nlohmann::json& record, const std::string& where) const override;

 private:
  std::vector<std::string> texts_of(const nlohmann::json& record, const std::string& where) const;
  std::vector<std::int32_t> right_ones(const nlohmann::json& record, const std::vector<std::string>& options,
                                       const std::string& where) const;

  ChoicePrompt prompt_;
  FieldPath label_;
  std::vector<PromptTemplate> templates_;  ///< one an option; empty: field_ holds them
  FieldPath field_;
};

MultipleChoice::MultipleChoice(const TaskContext& context)
    : prompt_(context), label_(context.config.label), field_(context.config.options.field) {
  for (const std::string& option : context.config.options.templates)
    templates_.emplace_back(parse_optional_template(option, "data.task.options"));
}

std::vector<std::string> MultipleChoice::texts_of(const nlohmann::json& record,
                                                  const std::string& where) const {
  if (templates_.empty()) {
    const nlohmann::json& list = field_.in(record, where);
    if (!list.is_array()) {
      throw InputError("{}: field {}: found {}, expected the list of options", where, quote(field_.name()),
                       list.type_name());
    }
    return field_.texts_in(record, where);
  }
  std::vector<std::string> texts;
  for (const PromptTemplate& option : templates_) texts.push_back(option.text(option.values(record, where)));
  return texts;
}

/// The option that a label means: its text, with the blank before it or without, or its number.
std::optional<std::int32_t> option_of(const nlohmann::json& label, const std::vector<std::string>& options) {
  std::size_t index = options.size();
  if (label.is_number_unsigned()) {
    index = std::min(label.get<std::size_t>(), options.size());
  } else if (label.is_string()) {
    const auto& text = label.get_ref<const std::string&>();
    const auto same = [&](const std::string& option) { return option == text || option == " " + text; };
    index = static_cast<std::size_t>(std::ranges::find_if(options, same) - options.begin());
    if (index == options.size()) {
      const auto number = std::from_chars(text.data(), text.data() + text.size(), index);
      if (number.ec != std::errc{} || number.ptr != text.data() + text.size()) index = options.size();
    }
  }
  if (index >= options.size()) return std::nullopt;
  return static_cast<std::int32_t>(index);
}

std::vector<std::int32_t> MultipleChoice::right_ones(const nlohmann::json& record,
                                                     const std::vector<std::string>& options,
                                                     const std::string& where) const {
  const nlohmann::json& value = label_.in(record, where);
  const nlohmann::json labels = value.is_array() ? value : nlohmann::json::array({value});
  std::vector<std::int32_t> right;
  for (const nlohmann::json& label : labels) {
    const std::optional<std::int32_t> option = option_of(label, options);
    if (!option) {
      throw InputError(
          "{}: field {}: found {}, expected the number, from 0, or the text of one of {} options", where,
          quote(label_.name()), quote(label.dump()), options.size());
    }
    if (std::ranges::find(right, *option) == right.end()) right.push_back(*option);
  }
  if (right.empty()) {
    throw InputError("{}: field {}: found an empty list, expected the right options", where,
                     quote(label_.name()));
  }
  return right;
}

EncodedRecord MultipleChoice::encode(const nlohmann::json& record, const std::string& where) const {
  EncodedRecord encoded;
  Example& example = encoded.example;
  const std::vector<std::string> texts = texts_of(record, where);
  const std::vector<std::int32_t> right = right_ones(record, texts, where);
  example.label = right[0];
  example.also_right.assign(right.begin() + 1, right.end());
  for (std::size_t i = 0; i < texts.size(); ++i)
    example.options.push_back(prompt_.encoder().answer(texts[i], where, fmt::format("option {}", i)));
  prompt_.put(record, texts, where, encoded);
  return encoded;
}

}  // namespace

std::unique_ptr<TaskKind> make_multiple_choice(const TaskContext& context) {
  return std::make_unique<MultipleChoice>(context);
}

}  // namespace mezzo
