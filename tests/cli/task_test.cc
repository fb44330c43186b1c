// Kinds of tasks from the file to the result.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <sstream>

#include "program.h"

namespace mezzo::test {
namespace {

class TaskTest : public ::testing::Test {
 protected:
  /// A command on a config with this task and data.
  Outcome mezzo(const std::string& verb, const std::string& task, const std::string& records,
                const std::string& more = "") {
    scratch_.write("data.jsonl", records);
    scratch_.write("config.yaml", fmt::format(R"(model: {{path: configs/quickstart/llama2m}}
data:
  train: {0}/data.jsonl
  task: {1}
lora: {{r: 1}}
train: {{output_dir: {0}/run, max_steps: 1, batch_size: 2}}
runtime: {{device: cpu, dtype: fp32, threads: 1}}
)",
                                              scratch_.path(), task));
    return run(scratch_, fmt::format("{} {} {}", verb, scratch_ / "config.yaml", more));
  }
  static bool says(const Outcome& outcome, const std::string& text) {
    return outcome.err.find(text) != std::string::npos;
  }
  /// The log-probabilities that the model gives each completion.
  std::vector<std::vector<double>> scores(const std::vector<std::pair<std::string, std::string>>& records) {
    std::string lines;
    for (const auto& [prompt, completion] : records)
      lines += nlohmann::json({{"prompt", prompt}, {"completion", completion}}).dump() + "\n";
    scratch_.write("score.jsonl", lines);
    const Outcome outcome = run(
        scratch_, fmt::format("score configs/quickstart/llama2m {} --device cpu", scratch_ / "score.jsonl"));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    std::vector<std::vector<double>> all;
    std::istringstream text(outcome.out);
    for (std::string line; std::getline(text, line);)
      all.push_back(nlohmann::json::parse(line).at("logprobs").get<std::vector<double>>());
    return all;
  }

  ScratchFolder scratch_;
};

TEST_F(TaskTest, AGenerationTaskIsValidated) {
  const std::string task =
      R"({type: generation, template: "Q: {q} A:", completion: "a:text", reward: number})";
  const std::string records = R"({"q": "2 + 2", "a": 4}
{"q": "2 + 3", "a": 5}
)";
  const Outcome valid = mezzo("validate", task, records, "train.data_seed=1 generation.max_new_tokens=5");
  EXPECT_EQ(valid.status, 0) << valid.err;
  EXPECT_TRUE(says(valid, "all inputs are good")) << valid.err;
  EXPECT_TRUE(says(valid, "reward     number")) << valid.err;
  EXPECT_TRUE(says(valid, "first prompt: \"<|endoftext|>Q: 2 + 2 A:\"") ||
              says(valid, "first prompt: \"<|endoftext|>Q: 2 + 3 A:\""))
      << valid.err;
  EXPECT_TRUE(says(valid, "| right answers: \"4\"") || says(valid, "| right answers: \"5\"")) << valid.err;
  const Outcome wrong = mezzo("validate", task, R"({"q": "2 + 2", "a": "four"})");
  EXPECT_EQ(wrong.errors().size(), 1u) << wrong.err;
  EXPECT_TRUE(says(wrong, "data.jsonl:1: the right answer \"four\" holds no number")) << wrong.err;
  const Outcome pattern =
      mezzo("validate", R"({type: generation, prompt: q, reward: {type: regex, pattern: "(a"}})", records);
  EXPECT_EQ(pattern.status, 2) << pattern.err;
  EXPECT_TRUE(says(pattern, "data.task.reward.pattern: the pattern does not compile")) << pattern.err;
  const Outcome tokens = mezzo("validate", task, records, "generation.max_new_tokens=100000");
  EXPECT_EQ(tokens.status, 2) << tokens.err;
  EXPECT_TRUE(says(tokens, "generation.max_new_tokens: 100000 leave no token for a prompt")) << tokens.err;
}

TEST_F(TaskTest, TheCountdownConfigIsGood) {
  const Outcome valid = run(scratch_,
                            "validate configs/countdown.yaml model.path=configs/quickstart/llama2m "
                            "data.train=tests/data/countdown.jsonl "
                            "data.validation=tests/data/countdown.jsonl runtime.device=cpu "
                            "'data.task.reward.command=[sh, configs/countdown/grader.py]'");
  EXPECT_EQ(valid.status, 0) << valid.err;
  EXPECT_TRUE(says(valid, "3 training examples, 3 validation examples")) << valid.err;
  EXPECT_TRUE(says(valid, "reward     sh configs/countdown/grader.py: can be started")) << valid.err;
  const Outcome nowhere = run(scratch_,
                              "validate configs/countdown.yaml model.path=configs/quickstart/llama2m "
                              "data.train=tests/data/countdown.jsonl data.validation=null "
                              "runtime.device=cpu 'data.task.reward={command: [no-such-grader]}'");
  EXPECT_EQ(nowhere.status, 2) << nowhere.err;
  EXPECT_EQ(
      nowhere.errors(),
      std::vector<std::string>{"mezzo: error: data.task.reward.command: cannot start \"no-such-grader\": no "
                               "folder of PATH has such a program"});
}

TEST_F(TaskTest, AMultipleChoicesLossIsThatOfItsScores) {
  const std::string records = R"({"q": "The sky is", "o": [" blue", " made of old cheese", " a"], "label": 1}
{"q": "Two and two", "o": [" are four", " go home"], "label": "are four"}
)";
  const std::string task = R"({type: multiple_choice, template: "{q}", options: o)";
  const std::vector<std::vector<std::string>> options = {{" blue", " made of old cheese", " a"},
                                                         {" are four", " go home"}};
  const std::size_t labels[] = {1, 0};
  std::vector<std::pair<std::string, std::string>> asked;
  for (const char* calibration : {"", "So"}) {
    const bool own = std::string(calibration).empty();
    for (const std::string& option : options[0]) asked.emplace_back(own ? "The sky is" : calibration, option);
    for (const std::string& option : options[1])
      asked.emplace_back(own ? "Two and two" : calibration, option);
  }
  const std::vector<std::vector<double>> all = scores(asked);
  ASSERT_EQ(all.size(), 10u);
  for (const bool normalized : {true, false}) {
    for (const bool calibrated : {false, true}) {
      const auto score = [&](std::size_t option) {
        const double sum = std::accumulate(all[option].begin(), all[option].end(), 0.0);
        return normalized ? sum / static_cast<double>(all[option].size()) : sum;
      };
      double loss = 0.0;
      double correct = 0.0;
      std::size_t first = 0;
      for (std::size_t record = 0; record < 2; ++record) {
        std::vector<double> own;
        double total = 0.0;
        for (std::size_t o = 0; o < options[record].size(); ++o) {
          own.push_back(score(first + o) - (calibrated ? score(first + o + 5) : 0.0));
          total += std::exp(own.back());
        }
        loss += (std::log(total) - own[labels[record]]) / 2;
        if (std::ranges::max_element(own) - own.begin() == static_cast<std::ptrdiff_t>(labels[record]))
          correct += 0.5;
        first += options[record].size();
      }
      const Outcome outcome =
          mezzo("eval",
                fmt::format("{}, length_normalized: {}{}}}", task, normalized,
                            calibrated ? ", calibration: \"So\"" : ""),
                records, fmt::format("--json data.validation={}", scratch_ / "data.jsonl"));
      ASSERT_EQ(outcome.status, 0) << outcome.err;
      const nlohmann::json result = nlohmann::json::parse(outcome.out);
      EXPECT_NEAR(result.at("loss").get<double>(), loss, 1e-4 * std::abs(loss));
      EXPECT_EQ(result.at("accuracy"), correct);
    }
  }
  const Outcome trained = mezzo("train", task + ", calibration: \"\"}", records);
  EXPECT_EQ(trained.status, 0) << trained.err;
}

TEST_F(TaskTest, Alpaca) {
  const Outcome outcome = mezzo("train", "{type: completion, format: alpaca}",
                                R"({"instruction": "Name a colour.", "input": "", "output": "Red."})"
                                "\n");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(says(outcome, "-> \"Red.<|endoftext|>\"")) << outcome.err;
}

TEST_F(TaskTest, WhatIsOverlongIsCounted) {
  const std::string long_text = "one two three four five six seven eight nine ten eleven twelve";
  const std::string records = "{\"prompt\": \"a\", \"completion\": \" b\"}\n{\"prompt\": \"" + long_text +
                              "\", \"completion\": \" b\"}\n";
  const auto with = [&](const std::string& verb, const std::string& overlong) {
    return mezzo(verb, "{type: completion, overlong: " + overlong + "}", records, "data.max_length=6");
  };
  for (const char* verb : {"validate", "train"}) {
    const Outcome cut = with(verb, "truncate");
    EXPECT_EQ(cut.status, 0) << cut.err;
    EXPECT_TRUE(says(cut,
                     "warning: data.train: 1 of 2 records have more than 6 tokens (data.max_length) and "
                     "lose some\n"))
        << cut.err;
    std::filesystem::remove_all(scratch_ / "run");
  }
  const Outcome skipped = with("validate", "skip");
  EXPECT_TRUE(says(skipped, "data       1 training examples")) << skipped.err;
  EXPECT_TRUE(says(skipped, "1 of 2 records have more than 6 tokens (data.max_length) and are left out"))
      << skipped.err;
  const Outcome refused = with("validate", "error");
  ASSERT_EQ(refused.errors().size(), 1u) << refused.err;
  EXPECT_TRUE(says(refused, "data.jsonl:2: ")) << refused.err;
  const Outcome none = mezzo("validate", "{type: completion, overlong: skip}", records, "data.max_length=1");
  EXPECT_TRUE(says(none, "each of the 2 records is left out (data.task.overlong: skip)")) << none.err;
}

TEST_F(TaskTest, WarnsOfWhatMayNotBeMeant) {
  const std::string records = R"({"s": "fine", "label": 0}
{"s": "<|endoftext|>bad", "label": 1}
)";
  const Outcome blank =
      mezzo("validate", R"({type: classification, template: "{s} is ", verbalizers: {0: a, 1: b}})", records);
  EXPECT_EQ(blank.status, 0) << blank.err;
  EXPECT_TRUE(says(blank, "data.train: 2 of 2 records have a prompt that ends in a blank")) << blank.err;
  EXPECT_TRUE(says(blank, "data.train: 1 of 2 records have a text that begins with the start token"))
      << blank.err;
  const Outcome glued =
      mezzo("validate", R"({type: classification, template: "{s} is", verbalizers: {0: a, 1: b}})", records);
  EXPECT_TRUE(says(glued, "2 of 2 records have an option that begins with a letter or digit")) << glued.err;
}

TEST_F(TaskTest, RecordsWithinRecordsAndComputedFields) {
  const Outcome outcome = mezzo(
      "validate",
      R"({type: completion, records: "qas[]", fields: {p: "{{ text | upper }}"}, template: "{p} {q}", completion: a})",
      R"({"text": "t", "qas": [{"q": "1", "a": ["x", "y"]}, {"q": "2", "a": "z"}]})"
      "\n");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(says(outcome, "data       2 training examples")) << outcome.err;
  EXPECT_TRUE(says(outcome, "<|endoftext|>T ")) << outcome.err;
  const Outcome wrong = mezzo("validate", R"({type: completion, records: "qas[]", completion: a})",
                              R"({"text": "t", "qas": [{"prompt": "1", "a": "x"}, {"prompt": "2"}]})"
                              "\n");
  ASSERT_EQ(wrong.errors().size(), 1u) << wrong.err;
  EXPECT_TRUE(says(wrong, "data.jsonl:1: qas[1]: field \"a\" is missing")) << wrong.err;
}

}  // namespace
}  // namespace mezzo::test
