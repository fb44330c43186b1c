// The graders in Python that users are shown, on completions made by hand.
#include <gtest/gtest.h>

#include <cstdlib>

#include "mezzo/data/reward.h"
#include "scratch.h"

namespace mezzo {
namespace {

constexpr const char* puzzle = R"({"prompt": "2 3 4 = 10:", "numbers": [2, 3, 4], "target": 10})";
constexpr const char* of_two_fives = R"({"prompt": "5 5 1 = 0:", "numbers": [5, 5, 1], "target": 0})";

class GraderExamples : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null") != 0)
      GTEST_SKIP() << "there is no Python of version 3.9 or later";
  }
  /// What the grader in `script` gives; it may not fail.
  static std::vector<Grade> grades_of(const std::string& script, std::vector<Completion> completions) {
    RewardConfig config;
    config.command = {"python3", script};
    config.timeout_s = 60;
    std::string warnings;
    const auto grader = make_grader(config, {.working_directory = MEZZO_SOURCE_DIR,
                                             .warn = [&](const std::string& line) { warnings += line; }});
    for (Completion& completion : completions) grader->submit(std::move(completion));
    std::vector<Grade> grades = grader->finish();
    EXPECT_EQ(warnings, "");
    return grades;
  }
};

TEST_F(GraderExamples, TheOneOfTheDocs) {
  const std::string page = test::read_all(MEZZO_SOURCE_DIR "/docs/rewards.md");
  const std::string fence = "```python\n";
  const std::size_t begin = page.find(fence) + fence.size();
  const test::ScratchFolder scratch;
  const std::string script = scratch.write("grader.py", page.substr(begin, page.find("```", begin) - begin));
  const std::string record = R"({"answer": 18})";
  EXPECT_EQ(grades_of(script, {{.record = record, .text = "it is 18 then", .tokens = 4},
                               {.record = record, .text = "18", .finish = FinishReason::length},
                               {.record = record, .text = "it is 180"}}),
            (std::vector<Grade>{
                {true, 1, {{"words", 4}}}, {true, 0.9, {{"words", 1}}}, {true, 0, {{"words", 3}}}}));
}

TEST_F(GraderExamples, Countdown) {
  const struct {
    const char* record;
    std::string text;
    double reward;
  } cases[] = {
      {puzzle, " 2*3+4", 1},
      {puzzle, "(2*3)+4", 1},
      {puzzle, " maybe 4+3*2", 1},
      {puzzle, " maybe 4+3*2\n\n7 be", 1},
      {puzzle, "\n4+3*2", 0},
      {puzzle, " maybe 2+3+4", 0.1},  // another value
      {puzzle, " 10", 0.1},           // of other numbers
      {puzzle, " 2*3+2+2", 0.1},
      {puzzle, " 2*5", 0.1},
      {puzzle, " 2*3+4+0*1", 0.1},
      {puzzle, " 3/0", 0.1},
      {puzzle, " 2*3+4 or so", 0},
      {puzzle, " maybe", 0},
      {puzzle, "", 0},
      {puzzle, " 2*(3+4", 0},
      {puzzle, " perhaps 2*3+4", 0},
      {puzzle, " -2*3+4", 0},  // no sign is offered
      {puzzle, " 2**3+4", 0},
      {puzzle, " 2.0*3+4", 0},
      {puzzle, " True+3", 0},
      {puzzle, " __import__('os').abort()", 0},
      {puzzle, std::string("2\0*3", 4), 0},
      {puzzle, std::string(2000, '('), 0},
      {puzzle, "\U0001F600\n", 0},
      {of_two_fives, " (5-5)*1", 1},
      {of_two_fives, " 5-5/1", 1},
      {of_two_fives, " (5-5)*1*1", 0.1},
      {of_two_fives, " 5*1-5", 1},
      {of_two_fives, " (1-1)*5", 0.1},
      {R"({"numbers": [3, 8, 9], "target": 24})", " 8/3*9", 1},  // by fractions
  };
  std::vector<Completion> completions;
  for (const auto& [record, text, reward] : cases) completions.push_back({.record = record, .text = text});
  const std::vector<Grade> grades = grades_of("configs/countdown/grader.py", completions);
  ASSERT_EQ(grades.size(), std::size(cases));
  for (std::size_t i = 0; i < grades.size(); ++i)
    EXPECT_EQ(grades[i], (Grade{true, cases[i].reward, {}})) << cases[i].text;
}

}  // namespace
}  // namespace mezzo
