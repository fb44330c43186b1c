#pragma once
// Tasks: how the records of data files become examples.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/data/computed_fields.h"
#include "mezzo/data/example.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/data/record_counts.h"
#include "mezzo/data/record_path.h"
#include "mezzo/data/task_kind.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// Reads records of data files as one kind of task.
class Task {
 public:
  /// `max_length`: tokens an example may have. UsageError when it cannot hold the start token, the template's
  /// own words and the longest option. `tokenizer` must outlive the task. `chat`: there for a chat.
  /// `max_new_tokens`: of a generation, whose prompts leave so many tokens of `max_length` free.
  Task(const TaskConfig& config, const Tokenizer& tokenizer, std::int64_t max_length,
       std::optional<ChatTemplate> chat = std::nullopt, std::int64_t max_new_tokens = 0);

  /// All records of a data file, each checked. InputError naming file, line and field, and for a file of
  /// which every record is left out. Adds what they have in them to `counts` if that is not null.
  std::vector<Example> read(const std::string& path, DataFormat format, RecordCounts* counts = nullptr) const;
  /// One record; `where` says in errors where it stands.
  EncodedRecord encode(nlohmann::json record, const std::string& where) const;

  const LossRule& loss_rule() const { return rule_; }
  TaskLoss loss() const { return rule_.loss; }
  const std::optional<ChatTemplate>& chat() const { return chat_; }
  /// Whether examples have options to choose from, so that there is an accuracy.
  bool chooses() const { return type_ == TaskType::classification || type_ == TaskType::multiple_choice; }
  /// Whether the model writes completions of its own, which get a reward: examples have no options.
  bool generates() const { return type_ == TaskType::generation; }
  /// Whether the options stand for the same classes in every example.
  bool classifies() const { return type_ == TaskType::classification; }
  /// The classes' labels as the config writes them; empty for other tasks.
  const std::vector<std::string>& labels() const { return labels_; }

 private:
  TaskType type_;
  LossRule rule_;
  std::optional<RecordPath> records_;
  ComputedFields fields_;
  std::vector<std::string> labels_;
  std::optional<ChatTemplate> chat_;
  std::unique_ptr<const TaskKind> kind_;
};

}  // namespace mezzo
