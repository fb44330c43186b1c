#include "mezzo/data/task.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "scratch.h"

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
  std::optional<NamedToken> eos_token() const override { return end_; }
  std::optional<NamedToken> end_;

 private:
  bool start_;
  mutable std::vector<std::string> words_;
};

/// The words of a prompt, behind its start token.
std::string words(const WordTokenizer& tokenizer, const std::vector<std::int32_t>& prompt) {
  EXPECT_EQ(prompt.at(0), 0);
  return tokenizer.decode(std::span(prompt).subspan(1));
}

TaskConfig classification() {
  TaskConfig config;
  config.prompt_template = "Review: {sentence} It was";
  config.verbalizers = {{"0", " bad"}, {"1", " very good"}};
  return config;
}

TEST(Task, EncodesTemplateAndOptions) {
  const WordTokenizer tokenizer(true);
  const Task task(classification(), tokenizer, 100);
  const char* const line = R"({"sentence": "a fine film", "label": 1, "other": [1]})";
  const Example example = task.encode(nlohmann::json::parse(line), "f:3").example;
  EXPECT_EQ(words(tokenizer, example.prompt), "Review: a fine film It was");
  EXPECT_EQ(example.label, 1);
  ASSERT_EQ(example.options.size(), 2u);
  EXPECT_EQ(tokenizer.decode(example.options[1]), " very good");
}

Example encoded(const Task& task, const std::string& line) {
  return task.encode(nlohmann::json::parse(line), "f:1").example;
}

/// What is left of a prompt in `max_length` tokens, behind its start token.
std::string truncated(const WordTokenizer& tokenizer, const TaskConfig& config, std::int64_t max_length,
                      const std::string& line) {
  const Example example = encoded(Task(config, tokenizer, max_length), line);
  return words(tokenizer, example.prompt);
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
  const Example example = encoded(task, R"({"a": "1 2 3", "b": " 4 5 6", "label": 0})");
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

// That the error holds each part.
#define EXPECT_ERROR(action, ...)                                                 \
  do {                                                                            \
    const std::string message = test::message_or_nothing<Error>([&] { action; }); \
    for (const std::string part : std::vector<std::string>{__VA_ARGS__})          \
      EXPECT_NE(message.find(part), message.npos) << message;                     \
  } while (false)

TEST(Task, FieldsWithinFieldsAndNumbersWhereTheTemplateSaysSo) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = classification();
  config.prompt_template = "{a.b[1].c} {n:text} {t:text} {null:text} {x.y}";
  const Task task(config, tokenizer, 100);
  const char* const line =
      R"({"a": {"b": [0, {"c": "deep"}]}, "n": 1.5, "t": true, "null": null, "x.y": "flat", "x": {"y": "no"},
          "label": 0})";
  EXPECT_EQ(words(tokenizer, encoded(task, line).prompt), "deep 1.5 true null flat");
  EXPECT_ERROR(encoded(task, R"({"a": {"b": [0]}, "label": 0})"), "f:1", "a.b[1].c", "is missing");
  config.prompt_template = "{n} {l}";
  EXPECT_ERROR(encoded(Task(config, tokenizer, 100), R"({"n": 3, "label": 0})"), "field \"n\": found number",
               "n:text");
  EXPECT_ERROR(encoded(Task(config, tokenizer, 100), R"({"n": "3", "l": [], "label": 0})"),
               "field \"l\": found array, expected a string");
}

TEST(Task, VerbalizersMayBeTemplates) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = classification();
  config.prompt_template = "{q}";
  config.verbalizers = {{"0", " {a}"}, {"1", " {{ {b.c}"}};
  const Task task(config, tokenizer, 100);
  const Example example = encoded(task, R"({"q": "Q", "a": "one", "b": {"c": "two three"}, "label": 1})");
  ASSERT_EQ(example.options.size(), 2u);
  EXPECT_EQ(tokenizer.decode(example.options[0]), " one");
  EXPECT_EQ(tokenizer.decode(example.options[1]), " { two three");
  // Without a field an option is literal.
  config.verbalizers = {{"0", " {{"}, {"1", " }"}};
  const Example literal = encoded(Task(config, tokenizer, 100), R"({"q": "Q", "label": 1})");
  EXPECT_EQ(tokenizer.decode(literal.options[0]), " {{");
}

TaskConfig multiple_choice() {
  TaskConfig config;
  config.type = TaskType::multiple_choice;
  config.prompt_template = "{q}";
  config.options.templates = {" {a}", " {b}"};
  return config;
}

TEST(Task, MultipleChoice) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = multiple_choice();
  const Task templates(config, tokenizer, 100);
  const Example example = encoded(templates, R"({"q": "Q", "a": "x", "b": "y z", "label": 1})");
  EXPECT_EQ(tokenizer.decode(example.options[1]), " y z");
  EXPECT_EQ(example.label, 1);
  EXPECT_TRUE(example.also_right.empty());
  EXPECT_TRUE(templates.chooses());
  EXPECT_FALSE(templates.classifies());

  config.options = {.templates = {}, .field = "c.texts"};
  config.label = "answer";
  const Task field(config, tokenizer, 100);
  const auto label = [&](const std::string& answer) {
    return encoded(field, R"({"q": "Q", "c": {"texts": [" x", " 0", " z"]}, "answer": )" + answer + "}");
  };
  EXPECT_EQ(label("2").label, 2);
  EXPECT_EQ(label("\"2\"").label, 2);   // of a table, where all is text
  EXPECT_EQ(label("\" z\"").label, 2);  // the option's text, with its blank or without
  EXPECT_EQ(label("\"z\"").label, 2);
  EXPECT_EQ(label("\"0\"").label, 1);  // a text goes before a number
  const Example several = label(R"(["z", " x", "z"])");
  EXPECT_EQ(several.label, 2);
  EXPECT_EQ(several.also_right, std::vector<std::int32_t>{0});
  for (const char* wrong : {"3", "-1", "\"w\"", "1.0", "null", "[]", "[5]", "\"-1\"", "\"\"", "{}"})
    EXPECT_ERROR(label(wrong), "f:1", "answer", "expected the ");
  EXPECT_ERROR(encoded(field, R"({"q": "Q", "c": {"texts": "x"}, "answer": 0})"), "list of options");
  EXPECT_ERROR(encoded(field, R"({"q": "Q", "c": {"texts": []}, "answer": 0})"), "an empty list");
  EXPECT_ERROR(encoded(field, R"({"q": "Q", "c": {"texts": ["a", 1]}, "answer": 0})"), "found number");
  EXPECT_ERROR(encoded(field, R"({"q": "Q", "c": {"texts": ["a", ""]}, "answer": 0})"),
               "option 1 has no tokens");
}

TEST(Task, CalibrationHasAPromptOfItsOwn) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = multiple_choice();
  config.calibration = "";  // the start token alone
  const char* const line = R"({"q": "Q", "a": "x", "b": "y", "label": 1})";
  EXPECT_EQ(encoded(Task(config, tokenizer, 100), line).calibration, std::vector<std::int32_t>{0});
  config.calibration = "So {a}";
  const Example example = encoded(Task(config, tokenizer, 100), line);
  EXPECT_EQ(words(tokenizer, example.calibration), "So x");
  const WordTokenizer no_start(false);
  config.calibration = "";
  EXPECT_ERROR(encoded(Task(config, no_start, 100), line), "data.task.calibration has 0 tokens");
}

TaskConfig completion() {
  TaskConfig config;
  config.type = TaskType::completion;
  config.append_eos = false;
  return config;
}

TEST(Task, CompletionRecords) {
  const WordTokenizer tokenizer(false);
  const Task task(completion(), tokenizer, 4);
  EXPECT_EQ(task.loss(), TaskLoss::language_model);
  const Example example = encoded(task, R"({"prompt": "a b c d", "completion": " e f"})");
  EXPECT_EQ(tokenizer.decode(example.prompt), " c d");
  EXPECT_EQ(example.options.size(), 1u);
  EXPECT_EQ(example.answers, std::vector<std::string>{" e f"});
  EXPECT_ERROR(encoded(task, R"({"prompt": "", "completion": " e"})"), "the prompt is empty");
  EXPECT_ERROR(encoded(task, R"({"prompt": "a", "completion": ""})"), "has no tokens");
}

TEST(Task, CompletionsOfAList) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = completion();
  config.prompt_template = "{q}?";
  config.completion = "answers.text";
  const Task task(config, tokenizer, 100);
  const Example example = encoded(task, R"({"q": "why", "answers": {"text": [" so", " thus"]}})");
  EXPECT_EQ(words(tokenizer, example.prompt), "why?");
  EXPECT_EQ(tokenizer.decode(example.options[0]), " so");
  EXPECT_EQ(example.answers, (std::vector<std::string>{" so", " thus"}));
  EXPECT_ERROR(encoded(task, R"({"q": "why", "answers": {"text": []}})"), "answers.text", "an empty list");
}

TEST(Task, AnEndTokenFollowsACompletion) {
  WordTokenizer tokenizer(true);
  TaskConfig config = completion();
  config.append_eos = true;
  EXPECT_ERROR(Task(config, tokenizer, 100), "data.task.append_eos", "names no end token");
  tokenizer.end_ = {77, "</s>"};
  const Example example = encoded(Task(config, tokenizer, 100), R"({"prompt": "a", "completion": " b"})");
  ASSERT_EQ(example.options[0].size(), 2u);
  EXPECT_EQ(example.options[0][1], 77);
  EXPECT_EQ(example.answers, std::vector<std::string>{" b"});
}

TEST(Task, Alpaca) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = completion();
  config.format = CompletionFormat::alpaca;
  const Task task(config, tokenizer, 500);
  const auto prompt = [&](const std::string& line) {
    const Example example = encoded(task, line);
    EXPECT_EQ(tokenizer.decode(example.options[0]), "4");
    return words(tokenizer, example.prompt);
  };
  const std::string with = prompt(R"({"instruction": "Add.", "input": "2 + 2", "output": "4"})");
  EXPECT_TRUE(with.ends_with("### Instruction:\nAdd.\n\n### Input:\n2 + 2\n\n### Response:")) << with;
  EXPECT_NE(with.find("paired with an input"), with.npos);
  for (const char* line : {R"({"instruction": "Add.", "input": "", "output": "4"})",
                           R"({"instruction": "Add.", "input": null, "output": "4"})",
                           R"({"instruction": "Add.", "output": "4"})"}) {
    const std::string without = prompt(line);
    EXPECT_TRUE(without.ends_with("### Instruction:\nAdd.\n\n### Response:")) << without;
    EXPECT_EQ(without.find("input"), without.npos);
  }
}

TEST(Task, WhatIsOverlong) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = completion();
  const nlohmann::json record = {{"prompt", "a b"}, {"completion", " c d e f"}};
  const auto encode = [&](std::int64_t max_length) {
    return Task(config, tokenizer, max_length).encode(record, "f:1");
  };
  EXPECT_EQ(encode(7).counts.overlong, 0);
  // The prompt first, but for its start token, then the completion's end.
  const EncodedRecord cut = encode(6);
  EXPECT_EQ(cut.counts.overlong, 1);
  EXPECT_EQ(words(tokenizer, cut.example.prompt), " b");
  EXPECT_EQ(cut.example.options[0].size(), 4u);
  const EncodedRecord all = encode(3);
  EXPECT_EQ(all.example.prompt, std::vector<std::int32_t>{0});
  EXPECT_EQ(tokenizer.decode(all.example.options[0]), " c d");
  config.overlong = Overlong::skip;
  EXPECT_TRUE(encode(6).skipped);
  EXPECT_FALSE(encode(7).skipped);
  config.overlong = Overlong::error;
  EXPECT_ERROR(encode(6), "f:1: 7 tokens, but data.max_length is 6 and data.task.overlong: error");
}

TaskConfig generation(RewardRule rule) {
  TaskConfig config;
  config.type = TaskType::generation;
  config.reward.type = rule;
  return config;
}

TEST(Task, GenerationRecords) {
  const WordTokenizer tokenizer(true);
  const auto encode = [&](const TaskConfig& config, const std::string& line, std::int64_t max_length = 100) {
    return Task(config, tokenizer, max_length, {}, 3).encode(nlohmann::json::parse(line), "f:1");
  };
  TaskConfig config = generation(RewardRule::number);
  const std::string line =
      R"({"prompt": "a b", "completion": ["18", "19"], "more": {"z": [1.5, null], "y": "é"}})";
  const Example example = encode(config, line).example;
  EXPECT_EQ(words(tokenizer, example.prompt), "a b");
  EXPECT_TRUE(example.options.empty());
  EXPECT_EQ(example.answers, (std::vector<std::string>{"18", "19"}));
  EXPECT_EQ(nlohmann::json::parse(example.record), nlohmann::json::parse(line));
  EXPECT_EQ(example.record.find('\n'), std::string::npos);

  EXPECT_ERROR(encode(config, R"({"prompt": "a"})"), "f:1", "\"completion\"");
  EXPECT_ERROR(encode(config, R"({"prompt": "a", "completion": "b"})"),
               "f:1: the right answer \"b\" holds no number");
  EXPECT_ERROR(encode(config, R"({"completion": "1"})"), "f:1", "\"prompt\"");
  config.prompt_template = "{q} =";
  config.completion = "a:text";
  EXPECT_EQ(words(tokenizer, encode(config, R"({"q": "6 * 3", "a": 18})").example.prompt), "6 * 3 =");
  EXPECT_EQ(encode(config, R"({"q": "6 * 3", "a": 18})").example.answers, std::vector<std::string>{"18"});

  // A program needs no right answers, and what compares with none neither.
  TaskConfig program = generation(RewardRule::length);
  EXPECT_TRUE(encode(program, R"({"prompt": "a"})").example.answers.empty());
  program.reward.type = {};
  program.reward.command = {"python3", "grader.py"};
  program.fields = {{"twice", "{{ prompt + prompt }}"}};
  const Example graded = encode(program, R"({"prompt": "a", "completion": 5})").example;
  EXPECT_TRUE(graded.answers.empty());
  EXPECT_EQ(graded.record, R"({"completion":5,"prompt":"a","twice":"aa"})");

  const Task task(config, tokenizer, 100, {}, 3);
  EXPECT_TRUE(task.generates());
  EXPECT_FALSE(task.chooses());
  EXPECT_FALSE(Task(completion(), tokenizer, 100, {}, 3).generates());
}

TEST(Task, PromptsLeaveRoomForNewTokens) {
  const WordTokenizer tokenizer(true);
  TaskConfig config = generation(RewardRule::length);
  const nlohmann::json record = {{"prompt", "a b c"}};
  const auto encode = [&](std::int64_t max_length, std::int64_t new_tokens) {
    return Task(config, tokenizer, max_length, {}, new_tokens).encode(record, "f:1");
  };
  EXPECT_EQ(words(tokenizer, encode(7, 3).example.prompt), "a b c");
  EXPECT_EQ(encode(7, 3).counts.overlong, 0);
  const EncodedRecord cut = encode(7, 4);
  EXPECT_EQ(cut.counts.overlong, 1);
  EXPECT_EQ(words(tokenizer, cut.example.prompt), " b c");
  EXPECT_EQ(encode(7, 6).example.prompt, std::vector<std::int32_t>{0});
  EXPECT_ERROR(encode(7, 7), "generation.max_new_tokens: 7 leave no token for a prompt", "7");
  config.overlong = Overlong::skip;
  EXPECT_TRUE(encode(7, 4).skipped);
  EXPECT_FALSE(encode(7, 3).skipped);
  config.overlong = Overlong::error;
  EXPECT_ERROR(encode(7, 4), "f:1: 8 tokens with generation.max_new_tokens, but data.max_length is 7");
  config.overlong = Overlong::truncate;
  config.prompt_template = "x y {prompt} z";
  EXPECT_ERROR(encode(7, 4), "f:1: 9 tokens are needed at least with generation.max_new_tokens");
  // What other tasks are given changes nothing.
  EXPECT_EQ(Task(completion(), tokenizer, 5, {}, 4)
                .encode({{"prompt", "a b c"}, {"completion", " d"}}, "f:1")
                .counts.overlong,
            0);
}

TEST(Task, OptionsThatAreTooLongLoseTheirEnds) {
  const WordTokenizer tokenizer(true);
  const Task task(multiple_choice(), tokenizer, 3);
  const Example example = encoded(task, R"({"q": "Q", "a": "x y z", "b": "w", "label": 0})");
  EXPECT_EQ(example.prompt, std::vector<std::int32_t>{0});
  EXPECT_EQ(tokenizer.decode(example.options[0]), " x y");
}

TEST(Task, CountsWhatMayNotBeMeant) {
  const WordTokenizer tokenizer(true);
  const auto counts = [&](const std::string& prompt, const std::string& option) {
    TaskConfig config = classification();
    config.prompt_template = prompt;
    config.verbalizers = {{"0", option}, {"1", " x"}};
    return Task(config, tokenizer, 100).encode({{"s", "a"}, {"label", 0}}, "f:1").counts;
  };
  EXPECT_EQ(counts("{s} was", " y"), RecordCounts{.records = 1});
  EXPECT_EQ(counts("{s}:\n", "y"), RecordCounts{.records = 1});
  EXPECT_EQ(counts("{s} was ", "y").blank_at_border, 1);
  EXPECT_EQ(counts("{s} was", "y").no_blank, 1);
  EXPECT_EQ(counts("{s} was", "\ny"), RecordCounts{.records = 1});
  const RecordCounts three{.records = 4, .overlong = 3, .second_start = 1};
  const std::vector<std::string> warnings = warnings_of(three, TaskConfig{}, "data.train", 8);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_EQ(
      warnings[0],
      "data.train: 3 of 4 records have more than 8 tokens (data.max_length) and lose some: most of the data "
      "is not seen as it is");
  EXPECT_NE(warnings[1].find("data.train: 1 of 4 records have a text that begins with the start token"),
            std::string::npos);
}

}  // namespace
}  // namespace mezzo
