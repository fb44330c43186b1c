#include "mezzo/data/task.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/data/records.h"

namespace mezzo {

namespace {

std::unique_ptr<const TaskKind> kind_of(const TaskContext& context, const std::optional<ChatTemplate>& chat) {
  switch (context.config.type) {
    case TaskType::classification:
      return make_classification(context);
    case TaskType::multiple_choice:
      return make_multiple_choice(context);
    case TaskType::completion:
      return make_completion(context);
    case TaskType::chat:
      return make_chat(context, chat.value());
    case TaskType::generation:
      return make_generation(context);
  }
  throw Error("data.task.type has the unknown value {}", static_cast<int>(context.config.type));
}

}  // namespace

Task::Task(const TaskConfig& config, const Tokenizer& tokenizer, std::int64_t max_length,
           std::optional<ChatTemplate> chat, std::int64_t max_new_tokens)
    : type_(config.type), rule_(config.loss), fields_(config.fields), chat_(std::move(chat)) {
  rule_.length_normalized = config.length_normalized;
  if (!chooses()) rule_.loss = TaskLoss::language_model;
  if (config.records) records_.emplace(*config.records);
  if (classifies()) {
    for (const Verbalizer& verbalizer : config.verbalizers) labels_.push_back(verbalizer.label);
  }
  kind_ = kind_of({.config = config,
                   .tokenizer = tokenizer,
                   .max_length = max_length,
                   .new_tokens = generates() ? max_new_tokens : 0},
                  chat_);
}

EncodedRecord Task::encode(nlohmann::json record, const std::string& where) const {
  fields_.add_to(record, where);
  return kind_->encode(record, where);
}

std::vector<Example> Task::read(const std::string& path, DataFormat format, RecordCounts* counts) const {
  std::vector<Example> examples;
  RecordCounts own;
  const RecordSink sink = [&](const nlohmann::json& record, const std::string& where) {
    EncodedRecord encoded = fields_.empty() ? kind_->encode(record, where) : encode(record, where);
    own += encoded.counts;
    if (!encoded.skipped) examples.push_back(std::move(encoded.example));
  };
  read_records(path, format, sink, records_ ? &*records_ : nullptr);
  if (examples.empty()) {
    throw InputError(
        "{}: each of the {} records is left out (data.task.overlong: skip), expected one that fits", path,
        own.records);
  }
  if (counts != nullptr) *counts += own;
  return examples;
}

}  // namespace mezzo
