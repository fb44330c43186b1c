#include "mezzo/data/answer_scores.h"

#include <gtest/gtest.h>

#include <utility>

namespace mezzo {
namespace {

// What SQuAD's script makes of these in Python 3.
TEST(AnswerScores, NormalizeAsSquad) {
  const std::pair<const char*, const char*> cases[] = {
      {"The  Eiffel-Tower, in Paris!", "eiffeltower in paris"},
      {"a", ""},
      {"An apple a day", "apple day"},
      {"th\u00e9\u00e2tre the", "th\u00e9\u00e2tre"},
      {"the_end", "theend"},
      {"the\u2013end", "\u2013end"},
      {"THEE a1 1a", "thee a1 1a"},
      {"\u00a0the\u2003x\x1cy", "x y"},
      {"\u00c0B the,the", "\u00e0b thethe"},
      {"\u0130stanbul", "i\u0307stanbul"},
      {"it's the U.S.A.", "its usa"},
      {"the\u0301 e", "\u0301 e"},
      {"a.b an|d", "ab and"},
      {"\u6771\u4eac the \u90fd", "\u6771\u4eac \u90fd"},
      {"  ", ""},
      {"", ""},
  };
  for (const auto& [text, normalized] : cases) EXPECT_EQ(normalize_answer(text), normalized) << text;
}

TEST(AnswerScores, ExactMatchIsWithAnyAnswer) {
  const std::vector<std::string> answers = {"Paris", "the city of Paris"};
  EXPECT_TRUE(exact_match(" paris.", answers));
  EXPECT_TRUE(exact_match("City of Paris", answers));
  EXPECT_FALSE(exact_match("in Paris", answers));
  EXPECT_FALSE(exact_match("", answers));
  EXPECT_FALSE(exact_match("Paris", std::vector<std::string>{}));
}

TEST(AnswerScores, TokenF1IsTheBestOfTheAnswers) {
  const auto f1 = [](const char* prediction, std::vector<std::string> answers) {
    return token_f1(prediction, answers);
  };
  EXPECT_DOUBLE_EQ(f1("the cat sat", {"a cat sat down"}), 0.8);  // 2 of 2, 2 of 3
  EXPECT_DOUBLE_EQ(f1("cat cat", {"cat"}), 2.0 / 3.0);           // 1 of 2, 1 of 1
  EXPECT_DOUBLE_EQ(f1("x y z", {"z y x"}), 1.0);
  EXPECT_DOUBLE_EQ(f1("", {"the"}), 1.0);
  EXPECT_DOUBLE_EQ(f1("", {"x"}), 0.0);
  EXPECT_DOUBLE_EQ(f1("c", {"x", "c d"}), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(f1("b", {"c"}), 0.0);
}

// By hand: class 0 has 3 examples, of which 2 are found, and 1 false one; class 1 has 2, of which 1 is found,
// and 1 false one; class 2 is never asked for nor answered; the last example has no answer.
TEST(AnswerScores, ClassesOneByOne) {
  const std::vector<std::int32_t> labels = {0, 0, 0, 1, 1, 3};
  const std::vector<std::int32_t> predictions = {0, 0, 1, 1, 0, -1};
  const std::vector<ClassScores> scores = class_scores(labels, predictions, 4);
  EXPECT_EQ(scores, (std::vector<ClassScores>{{3, 3, 2}, {2, 2, 1}, {0, 0, 0}, {1, 0, 0}}));
  EXPECT_DOUBLE_EQ(scores[0].precision(), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(scores[1].recall(), 0.5);
  EXPECT_DOUBLE_EQ(scores[1].f1(), 0.5);
  EXPECT_DOUBLE_EQ(scores[3].f1(), 0.0);
  EXPECT_DOUBLE_EQ(scores[2].precision(), 0.0);
  EXPECT_DOUBLE_EQ(macro_f1(scores), (2.0 / 3.0 + 0.5 + 0.0) / 3.0);  // class 2 does not count
}

}  // namespace
}  // namespace mezzo
