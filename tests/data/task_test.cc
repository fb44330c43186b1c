#include "mezzo/data/task.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

/// One token a word, its id the sum of its bytes; a word is a letter sequence with the spaces before it.
class WordTokenizer final : public Tokenizer {
 public:
  explicit WordTokenizer(bool start) : start_(start) {}
  std::vector<std::int32_t> encode(std::string_view text, bool) const override {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < text.size();) {
      std::size_t end = text.find(' ', i + 1);
      if (end == std::string_view::npos) end = text.size();
      words_.emplace_back(text.substr(i, end - i));
      ids.push_back(static_cast<std::int32_t>(words_.size()));
      i = end;
    }
    return ids;
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) text += words_[static_cast<std::size_t>(id) - 1];
    return text;
  }
  std::optional<std::int32_t> start_token() const override {
    return start_ ? std::optional(0) : std::nullopt;
  }

 private:
  bool start_;
  mutable std::vector<std::string> words_;
};

TaskConfig classification() {
  TaskConfig config;
  config.prompt_template = "Review: {sentence} It was";
  config.verbalizers = {{"0", " bad"}, {"1", " very good"}};
  return config;
}

TEST(Task, EncodesTemplateAndOptions) {
  const WordTokenizer tokenizer(true);
  const Task task(classification(), tokenizer, 100);
  const Example example =
      task.encode(nlohmann::json::parse(R"({"sentence": "a fine film", "label": 1, "other": [1]})"), "f:3");
  EXPECT_EQ(tokenizer.decode(std::span(example.prompt).subspan(1)), "Review: a fine film It was");
  EXPECT_EQ(example.prompt[0], 0);
  EXPECT_EQ(example.label, 1);
  ASSERT_EQ(example.options.size(), 2u);
  EXPECT_EQ(tokenizer.decode(example.options[1]), " very good");
}

/// What is left of a prompt in `max_length` tokens, behind its start token.
std::string truncated(const WordTokenizer& tokenizer, const TaskConfig& config, std::int64_t max_length,
                      const std::string& line) {
  const Example example = Task(config, tokenizer, max_length).encode(nlohmann::json::parse(line), "f:1");
  EXPECT_EQ(example.prompt[0], 0);
  return tokenizer.decode(std::span(example.prompt).subspan(1));
}

TEST(Task, TruncatesTheFieldFromTheLeft) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = classification();
  config.prompt_template = "{sentence} It was";
  // start + field + " It" + " was" + the longest option of 2 tokens: 5 without the field.
  EXPECT_EQ(truncated(tokenizer, config, 7, R"({"sentence": "one two three four", "label": 0})"),
            " three four It was");
  EXPECT_THROW(Task(config, tokenizer, 4), UsageError);
}

TEST(Task, AFieldThatStandsTwiceLosesHalfAtEachPlace) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = classification();
  config.prompt_template = "{sentence} |{sentence} It was";
  // start + " |" + " It" + " was" + 2 of the longest option: 4 tokens are left for both.
  EXPECT_EQ(truncated(tokenizer, config, 10, R"({"sentence": " one two three four", "label": 0})"),
            " three four | three four It was");
}

TEST(Task, SecondFieldLosesAfterTheFirst) {
  const WordTokenizer tokenizer(false);
  TaskConfig config = classification();
  config.prompt_template = "{a}|{b}|";
  config.verbalizers = {{"0", " x"}, {"1", " y"}};
  const Task task(config, tokenizer, 4);
  const Example example =
      task.encode(nlohmann::json::parse(R"({"a": "1 2 3", "b": " 4 5 6", "label": 0})"), "f:1");
  EXPECT_LE(example.prompt.size() + 1, 4u);
  EXPECT_EQ(tokenizer.decode(example.prompt), "| 5 6|");
}

TEST(Task, ErrorsNameFileLineAndField) {
  const WordTokenizer tokenizer(true);
  const Task task(classification(), tokenizer, 100);
  const auto message = [&](const char* line) {
    try {
      task.encode(nlohmann::json::parse(line), "data.jsonl:12");
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  for (const char* line : {R"({"label": 1})", R"({"sentence": 5, "label": 1})"}) {
    EXPECT_NE(message(line).find("data.jsonl:12"), std::string::npos) << message(line);
    EXPECT_NE(message(line).find("sentence"), std::string::npos) << message(line);
  }
  EXPECT_NE(message(R"({"sentence": "x"})").find("label"), std::string::npos);
  EXPECT_NE(message(R"({"sentence": "x", "label": 2})").find("0, 1"), std::string::npos);
  EXPECT_NE(message(R"({"sentence": "x", "label": 1.5})").find("label"), std::string::npos);
}

TEST(Task, CompletionRecords) {
  const WordTokenizer tokenizer(false);
  TaskConfig config;
  config.type = TaskType::completion;
  config.loss = TaskLoss::language_model;
  const Task task(config, tokenizer, 4);
  const Example example =
      task.encode(nlohmann::json::parse(R"({"prompt": "a b c d", "completion": " e f"})"), "f:1");
  EXPECT_EQ(tokenizer.decode(example.prompt), " c d");
  EXPECT_EQ(example.options.size(), 1u);
  EXPECT_THROW(task.encode(nlohmann::json::parse(R"({"prompt": "", "completion": " e"})"), "f:1"),
               InputError);  // no start token
  EXPECT_THROW(task.encode(nlohmann::json::parse(R"({"prompt": "a", "completion": ""})"), "f:1"), InputError);
  EXPECT_THROW(task.encode(nlohmann::json::parse(R"({"prompt": "a", "completion": " b c d e f"})"), "f:1"),
               InputError);
}

}  // namespace
}  // namespace mezzo
