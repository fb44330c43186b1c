// Completion: a prompt and the text that goes on with it.
#include <nlohmann/json.hpp>
#include <optional>

#include "mezzo/core/error.h"
#include "mezzo/data/task_kind.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

// Stanford Alpaca's prompts, https://github.com/tatsu-lab/stanford_alpaca (train.py).
constexpr const char* alpaca_with_input =
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:";
constexpr const char* alpaca_without_input =
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:";

PromptTemplate prompt_in_format(const TaskConfig& config) {
  if (config.format == CompletionFormat::alpaca) return PromptTemplate(parse_template(alpaca_with_input, ""));
  return prompt_of(config);
}

class Completion final : public TaskKind {
 public:
  explicit Completion(const TaskContext& context);
  EncodedRecord encode(const nlohmann::json& record, const std::string& where) const override;

 private:
  const PromptTemplate& prompt_for(const nlohmann::json& record) const;

  ExampleEncoder encoder_;
  PromptTemplate prompt_;
  std::optional<PromptTemplate> without_input_;  ///< of Alpaca's format
  FieldPath completion_;
  std::optional<std::int32_t> end_token_;  ///< that follows a completion
};

Completion::Completion(const TaskContext& context)
    : encoder_(context),
      prompt_(prompt_in_format(context.config)),
      completion_(context.config.format == CompletionFormat::alpaca ? "output" : context.config.completion) {
  if (context.config.format == CompletionFormat::alpaca)
    without_input_ = PromptTemplate(parse_template(alpaca_without_input, ""));
  if (!context.config.append_eos) return;
  end_token_ = context.tokenizer.end_token();
  if (!end_token_) {
    throw UsageError(
        "data.task.append_eos: the tokenizer names no end token (eos_token in tokenizer_config.json); "
        "expected one, or data.task.append_eos: false");
  }
}

const PromptTemplate& Completion::prompt_for(const nlohmann::json& record) const {
  if (!without_input_) return prompt_;
  const auto input = record.find("input");
  const bool has_input = input != record.end() && !input->is_null() && *input != "";
  return has_input ? prompt_ : *without_input_;
}

EncodedRecord Completion::encode(const nlohmann::json& record, const std::string& where) const {
  EncodedRecord encoded;
  Example& example = encoded.example;
  const PromptTemplate& prompt = prompt_for(record);
  const std::vector<std::string> values = prompt.values(record, where);
  example.answers = completion_.texts_in(record, where);
  const std::string& text = example.answers[0];
  example.options = {encoder_.answer(text, where, "field " + quote(completion_.name()))};
  if (end_token_) example.options[0].push_back(*end_token_);
  const std::string before = prompt.text(values);
  if (before.ends_with(' ') && !text.starts_with(' ')) encoded.counts.blank_at_border = 1;
  encoder_.put_prompt(prompt, values, where, encoded);
  return encoded;
}

}  // namespace

std::unique_ptr<TaskKind> make_completion(const TaskContext& context) {
  return std::make_unique<Completion>(context);
}

}  // namespace mezzo
