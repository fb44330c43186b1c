#pragma once
// Tasks: how a line of a data file becomes token ids, and how log-probabilities become a loss.
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mezzo/core/batch.h"
#include "mezzo/core/config.h"
#include "mezzo/data/chat_template.h"
#include "mezzo/data/prompt_template.h"
#include "mezzo/data/tokenizer.h"

namespace mezzo {

/// One encoded line. A completion record has its completion as the only option.
struct Example {
  std::vector<std::int32_t> prompt;  ///< start token first, where the tokenizer has one; not empty
  std::vector<std::vector<std::int32_t>> options;  ///< none empty
  std::int32_t label = 0;                          ///< index of the right option
  /// Of a chat, whose turns are one option: ranges [begin, end) of its tokens that the loss sees, in order,
  /// the first at 0 and the last up to its end. Empty: all.
  std::vector<std::pair<std::int32_t, std::int32_t>> counted{};
};

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

/// A slice packed for the model, with the targets whose answers make its loss.
struct LossBatch {
  struct Item {
    std::int32_t label = 0;                                      ///< index into options
    std::vector<std::pair<std::int32_t, std::int32_t>> options;  ///< ranges of targets, one an option asked
  };
  PackedBatch packed;
  std::vector<Item> items;  ///< one an example
  TaskLoss loss = TaskLoss::options;
};

/// `all_options`: ask for every option (the `options` loss and accuracy need them); else for the right one
/// alone.
LossBatch pack(std::span<const Example* const> examples, TaskLoss loss, bool all_options);
/// The tokens that pack() makes of an example.
std::int64_t packed_tokens(const Example& example, bool all_options);

struct SliceLoss {
  double sum = 0.0;
  double weight = 0.0;       ///< examples (`options`) or tokens (`language_model`)
  std::int64_t correct = 0;  ///< examples whose best option by mean token log-probability is the right one
};

/// log_probabilities [Q]; fp64 sums in the order of the examples.
///   options:        -log softmax(m)[label], m_o = mean token log-probability of option o
///   language_model: -sum of the right option's token log-probabilities
SliceLoss loss_of(const LossBatch& batch, std::span<const float> log_probabilities);

}  // namespace mezzo
