// Classification: a prompt, and one option for each class.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/data/records.h"
#include "mezzo/data/task_kind.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

class Classification final : public TaskKind {
 public:
  explicit Classification(const TaskContext& context);
  EncodedRecord encode(const nlohmann::json& record, const std::string& where) const override;

 private:
  /// What stands for a class: a text, or a template over the example.
  struct Option {
    PromptTemplate text;
    std::vector<std::int32_t> ids;  ///< of a text without fields; else empty
  };
  std::int32_t label_of(const nlohmann::json& record, const std::string& where) const;

  ChoicePrompt prompt_;
  FieldPath label_;
  std::vector<std::string> labels_;  ///< one a class
  std::vector<Option> options_;      ///< one a class
};

Classification::Classification(const TaskContext& context) : prompt_(context), label_(context.config.label) {
  std::int64_t longest = 0;
  for (const Verbalizer& verbalizer : context.config.verbalizers) {
    labels_.push_back(verbalizer.label);
    Option option{PromptTemplate(parse_optional_template(verbalizer.option, "data.task.verbalizers")), {}};
    if (option.text.field_count() == 0) {
      option.ids = context.tokenizer.encode_continuation(verbalizer.option);
      if (option.ids.empty()) {
        throw UsageError("data.task.verbalizers: option {} of label {} has no tokens",
                         quote(verbalizer.option), quote(verbalizer.label));
      }
      longest = std::max(longest, static_cast<std::int64_t>(option.ids.size()));
    }
    options_.push_back(std::move(option));
  }
  // What stays however much a field loses must fit by itself.
  if (const std::int64_t needed = prompt_.fixed_tokens() + longest; needed > context.max_length) {
    throw UsageError(
        "data.max_length: {} tokens, but the start token, the template's own words and the longest "
        "option need {}",
        context.max_length, needed);
  }
}

std::int32_t Classification::label_of(const nlohmann::json& record, const std::string& where) const {
  const nlohmann::json& value = label_.in(record, where);
  // As a config writes it: a string as it is, numbers and booleans as JSON prints them.
  const bool has_text = value.is_boolean() || value.is_number_integer();
  if (!value.is_string() && !has_text) {
    throw InputError("{}: field {}: found {}, expected a string, an integer or a boolean", where,
                     quote(label_.name()), value.type_name());
  }
  const std::string label = has_text ? value.dump() : value.get<std::string>();
  const auto known = std::ranges::find(labels_, label);
  if (known == labels_.end()) {
    throw InputError("{}: field {}: label {} is not one of data.task.verbalizers ({})", where,
                     quote(label_.name()), quote(label), fmt::join(labels_, ", "));
  }
  return static_cast<std::int32_t>(known - labels_.begin());
}

EncodedRecord Classification::encode(const nlohmann::json& record, const std::string& where) const {
  EncodedRecord encoded;
  Example& example = encoded.example;
  example.label = label_of(record, where);
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < options_.size(); ++i) {
    const Option& option = options_[i];
    texts.push_back(option.text.text(option.text.values(record, where)));
    example.options.push_back(
        option.ids.empty()
            ? prompt_.encoder().answer(texts[i], where, "the option of label " + quote(labels_[i]))
            : option.ids);
  }
  prompt_.put(record, texts, where, encoded);
  return encoded;
}

}  // namespace

std::unique_ptr<TaskKind> make_classification(const TaskContext& context) {
  return std::make_unique<Classification>(context);
}

}  // namespace mezzo
