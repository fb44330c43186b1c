#include "mezzo/data/record_counts.h"

#include <fmt/format.h>

namespace mezzo {

RecordCounts& RecordCounts::operator+=(const RecordCounts& other) {
  records += other.records;
  overlong += other.overlong;
  blank_at_border += other.blank_at_border;
  no_blank += other.no_blank;
  second_start += other.second_start;
  return *this;
}

std::vector<std::string> warnings_of(const RecordCounts& counts, const TaskConfig& task,
                                     const std::string& key, std::int64_t max_length) {
  std::vector<std::string> warnings;
  const auto warn = [&](std::int64_t count, const std::string& text) {
    if (count > 0)
      warnings.push_back(fmt::format("{}: {} of {} records {}", key, count, counts.records, text));
  };
  const bool skipped = task.overlong == Overlong::skip;
  warn(counts.overlong,
       fmt::format("have more than {} tokens (data.max_length){} and {}{}", max_length,
                   task.type == TaskType::generation ? " with generation.max_new_tokens" : "",
                   skipped ? "are left out" : "lose some",
                   2 * counts.overlong > counts.records ? ": most of the data is not seen as it is" : ""));
  warn(counts.blank_at_border,
       "have a prompt that ends in a blank before an answer without one: tokenizers keep a blank with "
       "the word behind it; move it to the answer");
  warn(counts.no_blank,
       "have an option that begins with a letter or digit and no blank before it: it goes on with "
       "the prompt's last word; options usually begin with a blank, as in \" great\"");
  warn(counts.second_start,
       "have a text that begins with the start token, which the tokenizer puts there once more; take it "
       "out of the text");
  return warnings;
}

}  // namespace mezzo
