#include "mezzo/data/loss_batch.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mezzo {
namespace {

Example example_of(std::vector<std::int32_t> prompt, std::vector<std::vector<std::int32_t>> options,
                   std::int32_t label) {
  return {.prompt = std::move(prompt), .options = std::move(options), .label = label};
}

TEST(Pack, OptionsOfOneTokenShareTheirPrompt) {
  const Example a = example_of({0, 1, 2}, {{7}, {8}}, 1);
  const Example b = example_of({0, 3}, {{7}, {8}}, 0);
  const Example* both[] = {&a, &b};
  const LossBatch batch = pack(both, TaskLoss::options, true);
  EXPECT_EQ(batch.packed.tokens, (std::vector<std::int32_t>{0, 1, 2, 0, 3}));
  EXPECT_EQ(batch.packed.positions, (std::vector<std::int32_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(batch.packed.offsets, (std::vector<std::int32_t>{0, 3, 5}));
  EXPECT_EQ(batch.packed.loss_rows, (std::vector<std::int32_t>{2, 4}));
  EXPECT_EQ(batch.packed.target_rows, (std::vector<std::int32_t>{0, 0, 1, 1}));
  EXPECT_EQ(batch.packed.target_tokens, (std::vector<std::int32_t>{7, 8, 7, 8}));
}

TEST(Pack, LongOptionsHaveSequencesOfTheirOwn) {
  const Example a = example_of({0, 1}, {{7}, {8, 9, 10}}, 0);
  const Example* one[] = {&a};
  const LossBatch batch = pack(one, TaskLoss::options, true);
  EXPECT_EQ(batch.packed.tokens, (std::vector<std::int32_t>{0, 1, 8, 9}));
  EXPECT_EQ(batch.packed.loss_rows, (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_EQ(batch.packed.target_rows, (std::vector<std::int32_t>{0, 0, 1, 2}));
  EXPECT_EQ(batch.packed.target_tokens, (std::vector<std::int32_t>{7, 8, 9, 10}));
  const LossBatch right = pack(one, TaskLoss::language_model, false);
  EXPECT_EQ(right.packed.tokens, (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(right.packed.target_tokens, (std::vector<std::int32_t>{7}));
}

TEST(Pack, TokensAreCountedWithoutPacking) {
  const Example short_options = example_of({0, 1, 2}, {{7}, {8}}, 1);
  const Example long_options = example_of({0, 1}, {{7}, {8, 9, 10}, {8, 9}}, 1);
  EXPECT_EQ(packed_tokens(short_options, true), 3);
  EXPECT_EQ(packed_tokens(long_options, true), 4 + 3);
  EXPECT_EQ(packed_tokens(long_options, false), 4);
  for (const Example& example : {short_options, long_options}) {
    const Example* one[] = {&example};
    for (const bool all : {true, false})
      EXPECT_EQ(packed_tokens(example, all), pack(one, TaskLoss::options, all).packed.token_count());
  }
}

TEST(Loss, OptionsByHand) {
  const Example a = example_of({0}, {{7}, {8, 9}}, 1);
  const Example* one[] = {&a};
  const LossBatch batch = pack(one, TaskLoss::options, true);
  const float scores[] = {-1.0f, -2.0f, -3.0f};  // means -1 and -2.5
  const SliceLoss loss = loss_of(batch, scores);
  EXPECT_DOUBLE_EQ(loss.sum, 2.5 + std::log(std::exp(-1.0) + std::exp(-2.5)));
  EXPECT_EQ(loss.weight, 1.0);
  EXPECT_EQ(loss.correct, 0);
  const LossBatch language = pack(one, TaskLoss::language_model, true);
  const SliceLoss tokens = loss_of(language, scores);
  EXPECT_EQ(tokens.sum, 5.0);
  EXPECT_EQ(tokens.weight, 2.0);
}

TEST(Loss, ScoresMayBeSumsLessTheCalibrationsOnes) {
  Example a = example_of({0}, {{7}, {8, 9}}, 0);
  a.calibration = {1, 2};
  const Example* one[] = {&a};
  LossRule rule = TaskLoss::options;
  const LossBatch batch = pack(one, rule, true);
  EXPECT_EQ(batch.packed.tokens, (std::vector<std::int32_t>{0, 8, 1, 2, 8}));
  EXPECT_EQ(batch.packed.offsets, (std::vector<std::int32_t>{0, 2, 5}));
  EXPECT_EQ(batch.packed.loss_rows, (std::vector<std::int32_t>{0, 1, 3, 4}));
  EXPECT_EQ(batch.packed.target_rows, (std::vector<std::int32_t>{0, 0, 1, 2, 2, 3}));
  EXPECT_EQ(batch.packed.target_tokens, (std::vector<std::int32_t>{7, 8, 9, 7, 8, 9}));
  EXPECT_EQ(packed_tokens(a, true), 5);
  EXPECT_EQ(packed_tokens(a, false), 1);
  const float scores[] = {-1.0f, -2.0f, -3.0f, -2.0f, -4.0f, -4.0f};
  // Means: -1 and -2.5, less -2 and -4.
  EXPECT_EQ(scores_of(batch.items[0], rule, scores), (std::vector<double>{1.0, 1.5}));
  EXPECT_EQ(loss_of(batch, scores).correct, 0);
  rule.length_normalized = false;  // -1 and -5, less -2 and -8
  EXPECT_EQ(scores_of(batch.items[0], rule, scores), (std::vector<double>{1.0, 3.0}));
  const SliceLoss summed = loss_of(pack(one, rule, true), scores);
  EXPECT_DOUBLE_EQ(summed.sum, 3.0 + std::log(std::exp(-2.0) + 1.0) - 1.0);
  // The right option's tokens alone train a language model.
  EXPECT_EQ(pack(one, TaskLoss::language_model, false).packed.tokens, std::vector<std::int32_t>{0});
}

TEST(Loss, AnyRightOptionIsCorrect) {
  Example a = example_of({0}, {{7}, {8}, {9}}, 0);
  a.also_right = {2};
  const Example* one[] = {&a};
  const LossBatch batch = pack(one, TaskLoss::options, true);
  EXPECT_EQ(loss_of(batch, std::vector<float>{-2.0f, -3.0f, -1.0f}).correct, 1);
  EXPECT_EQ(loss_of(batch, std::vector<float>{-2.0f, -1.0f, -3.0f}).correct, 0);
}

TEST(Loss, AccuracyCountsWrongAnswers) {
  // Scores -1 and -2: the first option is the answer.
  LossBatch batch;
  batch.rule = TaskLoss::accuracy;
  batch.items = {{.label = 0, .options = {{0, 1}, {1, 2}}},
                 {.label = 1, .options = {{0, 1}, {1, 2}}},
                 {.label = 1, .options = {{0, 1}, {1, 2}}, .also_right = {0}}};
  const SliceLoss loss = loss_of(batch, std::vector<float>{-1.0f, -2.0f});
  EXPECT_EQ(loss.sum, 1.0);
  EXPECT_EQ(loss.weight, 3.0);
  EXPECT_EQ(loss.correct, 2);
  EXPECT_TRUE(std::isnan(loss_of(batch, std::vector<float>{std::nanf(""), -2.0f}).sum));
}

TEST(Pack, ExamplesMayDifferInTheNumberOfOptions) {
  const Example a = example_of({0}, {{7}, {8}, {9}}, 2);
  const Example b = example_of({1}, {{7}}, 0);
  const Example* both[] = {&a, &b};
  const LossBatch batch = pack(both, TaskLoss::options, true);
  EXPECT_EQ(batch.items[0].options.size(), 3u);
  EXPECT_EQ(batch.items[1].options.size(), 1u);
  const SliceLoss loss = loss_of(batch, std::vector<float>{-1.0f, -1.0f, -1.0f, -5.0f});
  EXPECT_DOUBLE_EQ(loss.sum, std::log(3.0));
  EXPECT_EQ(loss.weight, 2.0);
}

TEST(Loss, NotANumberIsNeverCorrect) {
  const Example a = example_of({0}, {{7}, {8}}, 0);
  const Example* one[] = {&a};
  const float scores[] = {std::nanf(""), -1.0f};
  const SliceLoss loss = loss_of(pack(one, TaskLoss::options, true), scores);
  EXPECT_TRUE(std::isnan(loss.sum));
  EXPECT_EQ(loss.correct, 0);
}

}  // namespace
}  // namespace mezzo
