#pragma once
// Tasks: how a line of a data file becomes token ids.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/data/example.h"
#include "mezzo/data/prompt_template.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// Reads lines of a data file as one kind of task.
class Task {
 public:
  /// `max_length`: tokens an example may have. UsageError when it cannot hold the start token, the template's
  /// own words and the longest option. `tokenizer` must outlive the task. `chat`: there for a chat.
  Task(const TaskConfig& config, const Tokenizer& tokenizer, std::int64_t max_length,
       std::optional<ChatTemplate> chat = std::nullopt);

  /// All records of a data file, each checked. InputError naming file, line and field.
  std::vector<Example> read(const std::string& path, DataFormat format) const;
  /// One record; `where` says in errors where it stands.
  Example encode(const nlohmann::json& record, const std::string& where) const;

  TaskLoss loss() const { return loss_; }
  const std::optional<ChatTemplate>& chat() const { return chat_; }
  bool classifies() const { return type_ == TaskType::classification; }
  /// An option's text by its index, for printing.
  const std::string& option_text(std::int32_t label) const {
    return option_texts_[static_cast<std::size_t>(label)];
  }

 private:
  std::vector<std::int32_t> encode_prompt(std::vector<std::string> values, std::int64_t longest_option,
                                          const std::string& where) const;

  TaskType type_;
  TaskLoss loss_;
  const Tokenizer& tokenizer_;
  std::int64_t max_length_;
  std::optional<ChatTemplate> chat_;
  PromptTemplate template_;                ///< a completion's is its prompt field alone; a chat's is empty
  std::string target_field_;               ///< label or completion
  std::vector<std::string> labels_;        ///< classification: labels' texts
  std::vector<std::string> option_texts_;  ///< classification: one a label
  std::vector<std::vector<std::int32_t>> options_;
  std::int64_t longest_option_ = 0;
};

}  // namespace mezzo
