#include "mezzo/data/reward_rules.h"

#include <gtest/gtest.h>

#include <cmath>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

using Texts = std::vector<std::string>;

RewardConfig rule(RewardRule type, std::optional<std::string> pattern = {}) {
  RewardConfig config;
  config.type = type;
  config.pattern = std::move(pattern);
  return config;
}

double reward_of(const RewardConfig& config, const std::string& text, const Texts& answers) {
  return BuiltInReward(config, 64).of({.record = "{}", .answers = answers, .text = text, .tokens = 3});
}

TEST(RewardRules, LastNumber) {
  const struct {
    const char* text;
    std::optional<std::string> number;
  } cases[] = {
      {"", {}},
      {"no digits, not one.", {}},
      {"18", "18"},
      {" = 18", "18"},
      {"first 3, then 18.", "18"},
      {"#### 18\n", "18"},
      {"It costs $1,234.50.", "1234.5"},
      {"1,234,567", "1234567"},
      {"12,345,67", "67"},  // no group of three
      {"1,2345", "2345"},   // four digits behind the comma are another number
      {"1234,567", "567"},  // nor is a group behind four digits one
      {"3,4", "4"},
      {"1,000, 2", "2"},
      {"-5", "-5"},
      {"x = -5", "-5"},
      {"(-5)", "-5"},
      {"7-5", "5"},  // a difference
      {"x-5", "5"},
      {"7 - 5", "5"},
      {"7 -5", "-5"},
      {"\u22125", "-5"},  // MINUS SIGN
      {"-0", "0"},
      {"-0.0", "0"},
      {"007", "7"},
      {"2.50", "2.5"},
      {"2.0", "2"},
      {"2.", "2"},
      {".5", "0.5"},
      {"-.5", "-0.5"},
      {"and so on...5", "5"},
      {"v1.2.3", "3"},
      {"50%", "50"},
      {"1/2", "2"},
      {"18/3=6", "6"},
      {"100000000000000000000001", "100000000000000000000001"},  // no double would tell it from ...002
      {"\u00e95", "5"},
      {"caf\u00e9-5", "5"},
  };
  for (const auto& [text, number] : cases) EXPECT_EQ(last_number(text), number) << text;
}

TEST(RewardRules, ChoiceLetter) {
  const struct {
    const char* text;
    std::optional<char> letter;
  } cases[] = {
      {"", {}},
      {"none of them", {}},
      {"B", 'B'},
      {" (B)", 'B'},
      {"B) because A is wrong", 'B'},
      {"**C**", 'C'},
      {"_C_", 'C'},
      {"\u201cC\u201d", 'C'},
      {"The answer is D.", 'D'},
      {"A comes close, but the answer is D.", 'D'},
      {"Answer: E", 'E'},
      {"ANSWER:F", 'F'},
      {"C is my answer", 'C'},              // nothing behind the word
      {"The answer is B. Answer: C", 'C'},  // the last
      {"The answer is B. That is my answer", 'B'},
      {"I think it is B", 'B'},
      {"I'd say B", 'B'},
      {"I\u2019d say B", 'B'},
      {"I", 'I'},
      {"(I) is right", 'I'},
      {"USA", {}},
      {"A1 B", 'B'},
      {"\u00c9A B", 'B'},
      {"b", {}},
  };
  for (const auto& [text, letter] : cases) EXPECT_EQ(choice_letter(text), letter) << text;
}

TEST(RewardRules, Contains) {
  EXPECT_TRUE(contains_answer("it is Paris.", Texts{" Paris"}));
  EXPECT_TRUE(contains_answer("it is Paris.", Texts{"Rome", "Paris"}));
  EXPECT_FALSE(contains_answer("it is paris.", Texts{"Paris"}));
  EXPECT_FALSE(contains_answer("", Texts{"Paris"}));
  EXPECT_FALSE(contains_answer("it is Paris.", Texts{}));
}

TEST(RewardRules, Regex) {
  const auto reward = [](const char* pattern, const char* text, const Texts& answers) {
    return reward_of(rule(RewardRule::regex, pattern), text, answers);
  };
  EXPECT_EQ(reward("[0-9]+ apples", "he has 3 apples", {}), 1.0);
  EXPECT_EQ(reward("[0-9]+ apples", "he has no apples", {}), 0.0);
  EXPECT_EQ(reward("^yes$", "yes", {"no"}), 1.0);  // without a group answers mean nothing
  EXPECT_EQ(reward("#### (-?[0-9]+)", "#### 18", {"18"}), 1.0);
  EXPECT_EQ(reward("#### (-?[0-9]+)", "#### 18", {" 18\n"}), 1.0);
  EXPECT_EQ(reward("#### (-?[0-9]+)", "#### 18", {"19", "18"}), 1.0);
  EXPECT_EQ(reward("#### (-?[0-9]+)", "#### 18", {"19"}), 0.0);
  EXPECT_EQ(reward("#### (-?[0-9]+)", "18", {"18"}), 0.0);
  EXPECT_EQ(reward("#### ([0-9]+)", "#### 1 #### 2", {"1"}), 0.0);  // the last match
  EXPECT_EQ(reward("#### ([0-9]+)", "#### 1 #### 2", {"2"}), 1.0);
  EXPECT_EQ(reward("a|(b)", "b a", {"b"}), 0.0);  // the last match has no part in the group
  EXPECT_EQ(reward("a|(b)", "b a", {""}), 0.0);
  EXPECT_EQ(reward("(?:x)(y)", "xy", {"y"}), 1.0);

  EXPECT_FALSE(BuiltInReward(rule(RewardRule::regex, "a"), 1).needs_answers());
  EXPECT_TRUE(BuiltInReward(rule(RewardRule::regex, "(a)"), 1).needs_answers());
  try {
    const BuiltInReward bad(rule(RewardRule::regex, "(a"), 1);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_EQ(std::string(error.what()).find("data.task.reward.pattern: the pattern does not compile"), 0u)
        << error.what();
  }
}

TEST(RewardRules, Length) {
  EXPECT_EQ(length_reward(0, 0, 10), 1.0);
  EXPECT_EQ(length_reward(4, 0, 10), 0.6);
  EXPECT_EQ(length_reward(10, 0, 10), 0.0);
  EXPECT_EQ(length_reward(10, 10, 10), 1.0);
  EXPECT_EQ(length_reward(0, 10, 10), 0.0);
  EXPECT_EQ(length_reward(8, 8, 10), 1.0);
  EXPECT_EQ(length_reward(4, 8, 10), 0.5);
  EXPECT_EQ(length_reward(10, 8, 10), 0.75);
  EXPECT_EQ(length_reward(0, 0, 1), 1.0);
  EXPECT_EQ(length_reward(1, 0, 1), 0.0);
  RewardConfig config = rule(RewardRule::length);
  config.target = 1;
  EXPECT_EQ(BuiltInReward(config, 5).of({.tokens = 3}), 0.5);
}

TEST(RewardRules, CompareWithRightAnswers) {
  EXPECT_EQ(reward_of(rule(RewardRule::exact_match), "The Cat!", {"dog", "cat"}), 1.0);
  EXPECT_EQ(reward_of(rule(RewardRule::exact_match), "The cats", {"dog", "cat"}), 0.0);
  EXPECT_DOUBLE_EQ(reward_of(rule(RewardRule::f1), "a black cat", {"black dog"}), 0.5);
  EXPECT_EQ(reward_of(rule(RewardRule::number), "so 18.0 it is", {"#### 18"}), 1.0);
  EXPECT_EQ(reward_of(rule(RewardRule::number), "so 18.0 it is", {"1", "180"}), 0.0);
  EXPECT_EQ(reward_of(rule(RewardRule::number), "none", {"18"}), 0.0);
  EXPECT_EQ(reward_of(rule(RewardRule::choice), "(B)", {"A", "B"}), 1.0);
  EXPECT_EQ(reward_of(rule(RewardRule::choice), "(B)", {"A"}), 0.0);
  EXPECT_EQ(reward_of(rule(RewardRule::choice), "?", {"A"}), 0.0);
  EXPECT_EQ(reward_of(rule(RewardRule::contains), "a cat", {"cat"}), 1.0);
}

TEST(RewardRules, RefusesRightAnswersThatNoCompletionCanBe) {
  const auto error = [](RewardRule type, const Texts& answers) -> std::string {
    try {
      BuiltInReward(rule(type), 1).check(answers, "d.jsonl:3");
    } catch (const InputError& problem) {
      return problem.what();
    }
    return "";
  };
  EXPECT_EQ(error(RewardRule::number, {"18", "many"}),
            "d.jsonl:3: the right answer \"many\" holds no number, which data.task.reward number looks for");
  EXPECT_NE(error(RewardRule::choice, {"b"}).find("no capital letter"), std::string::npos);
  EXPECT_NE(error(RewardRule::contains, {" \n"}).find("no text"), std::string::npos);
  EXPECT_EQ(error(RewardRule::number, {"18"}), "");
  EXPECT_EQ(error(RewardRule::choice, {" B"}), "");
  EXPECT_EQ(error(RewardRule::exact_match, {""}), "");
}

// ---- as a grader ----------------------------------------------------------------------------------------

TEST(RuleGrader, GradesInTheOrderOfSubmission) {
  const auto grader = make_grader(rule(RewardRule::number), {});
  EXPECT_TRUE(grader->finish().empty());
  for (const char* text : {"1", "2", "3"}) grader->submit({.answers = {"2"}, .text = text});
  EXPECT_EQ(grader->finish(), (std::vector<Grade>{{true, 0, {}}, {true, 1, {}}, {true, 0, {}}}));
  EXPECT_TRUE(grader->finish().empty());
}

TEST(RuleGrader, SaysOnceWhatHasNoReward) {
  // What backtracks without end is stopped by the number of its steps.
  RewardConfig config = rule(RewardRule::regex, "(x+x+)+y");
  const std::string hard(10'000, 'x');
  std::vector<std::string> lines;
  const auto grader = make_grader(config, {.warn = [&](const std::string& line) { lines.push_back(line); }});
  for (const std::string& text : {std::string("xxy"), hard, hard})
    grader->submit({.answers = {"xx"}, .text = text});
  EXPECT_EQ(grader->finish(), (std::vector<Grade>{{true, 1, {}}, {false, 0, {}}, {false, 0, {}}}));
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find("2 of 3 completions have no reward; the first: data.task.reward.pattern: "),
            std::string::npos)
      << lines[0];
  EXPECT_TRUE(grader->finish().empty());
  EXPECT_EQ(lines.size(), 1u);

  config.on_error = OnRewardError::stop;
  const auto strict = make_grader(config, {});
  EXPECT_THROW(
      {
        strict->submit({.answers = {"xx"}, .text = hard});
        strict->finish();
      },
      Error);
}

}  // namespace
}  // namespace mezzo
