// Generation: a prompt that the model goes on from in its own words, and what its completions are worth.
#include <nlohmann/json.hpp>
#include <optional>

#include "mezzo/core/error.h"
#include "mezzo/data/reward_rules.h"
#include "mezzo/data/task_kind.h"

namespace mezzo {

namespace {

class Generation final : public TaskKind {
 public:
  explicit Generation(const TaskContext& context);
  EncodedRecord encode(const nlohmann::json& record, const std::string& where) const override;

 private:
  ExampleEncoder encoder_;
  PromptTemplate prompt_;
  FieldPath answers_;
  std::optional<BuiltInReward> reward_;  ///< none: a program, which gets the record
};

Generation::Generation(const TaskContext& context)
    : encoder_(context), prompt_(prompt_of(context.config)), answers_(context.config.completion) {
  if (context.new_tokens >= context.max_length) {
    throw UsageError(
        "generation.max_new_tokens: {} leave no token for a prompt; expected fewer than data.max_length, or "
        "than the model has positions, {}",
        context.new_tokens, context.max_length);
  }
  if (context.config.reward.type) reward_.emplace(context.config.reward, context.new_tokens);
}

EncodedRecord Generation::encode(const nlohmann::json& record, const std::string& where) const {
  EncodedRecord encoded;
  Example& example = encoded.example;
  if (reward_ && reward_->needs_answers()) {
    example.answers = answers_.texts_in(record, where);
    reward_->check(example.answers, where);
  }
  if (!encoder_.put_prompt(prompt_, prompt_.values(record, where), where, encoded)) return encoded;
  example.record = record.dump();
  return encoded;
}

}  // namespace

std::unique_ptr<TaskKind> make_generation(const TaskContext& context) {
  return std::make_unique<Generation>(context);
}

}  // namespace mezzo
