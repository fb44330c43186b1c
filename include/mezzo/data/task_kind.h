#pragma once
// The kinds of tasks: one class a kind that makes examples of records, and what they share.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/data/example.h"
#include "mezzo/data/prompt_template.h"
#include "mezzo/data/record_counts.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

struct EncodedRecord {
  Example example;
  RecordCounts counts{.records = 1};
  bool skipped = false;  ///< left out for its length: there is no example
};

/// How the records of one kind of task become examples.
class TaskKind {
 public:
  virtual ~TaskKind() = default;
  /// InputError naming `where` and the field.
  virtual EncodedRecord encode(const nlohmann::json& record, const std::string& where) const = 0;
};

/// What all kinds get. References must outlive the kind.
struct TaskContext {
  const TaskConfig& config;  ///< used by constructors alone
  const Tokenizer& tokenizer;
  std::int64_t max_length;      ///< tokens of an example
  std::int64_t new_tokens = 0;  ///< of a generation: tokens of max_length that its prompt leaves free
};

std::unique_ptr<TaskKind> make_classification(const TaskContext& context);
std::unique_ptr<TaskKind> make_multiple_choice(const TaskContext& context);
std::unique_ptr<TaskKind> make_completion(const TaskContext& context);
std::unique_ptr<TaskKind> make_chat(const TaskContext& context, const ChatTemplate& chat);
std::unique_ptr<TaskKind> make_generation(const TaskContext& context);

// ---- what kinds share -----------------------------------------------------------------------------------

/// data.task.template, or the field data.task.prompt.
PromptTemplate prompt_of(const TaskConfig& config);

/// Puts prompts before answers, so that both fit into an example.
class ExampleEncoder {
 public:
  explicit ExampleEncoder(const TaskContext& context)
      : tokenizer_(context.tokenizer),
        max_length_(context.max_length),
        new_tokens_(context.new_tokens),
        overlong_(context.config.overlong) {}

  const Tokenizer& tokenizer() const { return tokenizer_; }
  std::int64_t max_length() const { return max_length_; }

  /// The ids of an answer that follows a prompt. InputError naming `where`, and `what` when it has none.
  std::vector<std::int32_t> answer(const std::string& text, const std::string& where,
                                   const std::string& what) const;
  /// Sets the example's prompt before its options, which are there, or before the new tokens of a generation:
  /// the template with the record's values.
  /// What is too long is dealt with as data.task.overlong says; false where the record is left out.
  bool put_prompt(const PromptTemplate& prompt, const std::vector<std::string>& values,
                  const std::string& where, EncodedRecord& encoded) const;
  /// Counts a record of `tokens` tokens; false where it is left out for them. InputError naming `where` where
  /// data.task.overlong says so.
  bool takes(std::int64_t tokens, const std::string& where, EncodedRecord& encoded) const;

 private:
  const Tokenizer& tokenizer_;
  std::int64_t max_length_;
  std::int64_t new_tokens_;
  Overlong overlong_;
};

/// The prompt of a kind that chooses among options, and what scores are calibrated with.
class ChoicePrompt {
 public:
  explicit ChoicePrompt(const TaskContext& context);

  /// Makes the example's prompts of its options' texts. As ExampleEncoder::put_prompt().
  bool put(const nlohmann::json& record, std::span<const std::string> option_texts, const std::string& where,
           EncodedRecord& encoded) const;
  /// Tokens that stay however much is cut: the start token and the template's own words.
  std::int64_t fixed_tokens() const;
  const ExampleEncoder& encoder() const { return encoder_; }

 private:
  ExampleEncoder encoder_;
  PromptTemplate prompt_;
  std::vector<PromptTemplate> calibration_;  ///< one or none
};

}  // namespace mezzo
