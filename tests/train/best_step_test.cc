#include "mezzo/train/best_step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/train/metrics_file.h"
#include "mezzo/train/trainer_state.h"
#include "scratch.h"

namespace mezzo {
namespace {

Evaluation with(std::optional<double> accuracy, double loss) {
  return {.examples = 10, .accuracy = accuracy, .loss = loss};
}

/// Shows evaluations of the steps 0, 10, 20, ... and returns the best step behind each.
std::vector<std::uint64_t> best_behind(BestStep& best, const std::vector<Evaluation>& evaluations) {
  std::vector<std::uint64_t> steps;
  for (std::size_t i = 0; i < evaluations.size(); ++i) {
    const bool better = best.see(10 * i, evaluations[i]);
    EXPECT_EQ(better, best.best() && best.best()->steps_done == 10 * i) << i;
    steps.push_back(best.best() ? best.best()->steps_done : 999);
  }
  return steps;
}

using Steps = std::vector<std::uint64_t>;

TEST(BestStep, MoreAccuracyIsBetterAndOfEqualsTheFirst) {
  BestStep best({});
  EXPECT_EQ(best_behind(best, {with(0.5, 1), with(0.7, 2), with(0.7, 0.1), with(0.6, 0), with(0.8, 9)}),
            (Steps{0, 10, 10, 10, 40}));
  EXPECT_EQ(best.metric(), "eval_accuracy");
  EXPECT_EQ(best.best()->value, 0.8);
}

TEST(BestStep, LessLossIsBetter) {
  for (const auto& name : {std::optional<std::string>("eval_loss"), std::optional<std::string>("loss")}) {
    BestStep best(name);
    EXPECT_EQ(best_behind(best, {with(0.5, 1), with(0.7, 2), with(0.1, 0.5), with(0.9, 0.5)}),
              (Steps{0, 0, 20, 20}));
  }
  BestStep completion({});  // which has no accuracy
  EXPECT_EQ(best_behind(completion, {with({}, 1), with({}, 2), with({}, 0.5)}), (Steps{0, 0, 20}));
  EXPECT_EQ(completion.metric(), "eval_loss");
}

TEST(BestStep, F1IsAMetricOfClassifications) {
  BestStep best(std::string("f1"));
  const auto with_f1 = [](double f1) {
    return Evaluation{.examples = 10, .accuracy = 0.5, .f1 = f1, .loss = 1};
  };
  EXPECT_EQ(best_behind(best, {with_f1(0.2), with_f1(0.1), with_f1(0.3)}), (Steps{0, 0, 20}));
  EXPECT_EQ(best.metric(), "eval_f1");
}

TEST(BestStep, WhatIsNoNumberIsNeverBest) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  BestStep best(std::string("eval_loss"));
  EXPECT_EQ(best_behind(best, {with(0.5, nan), with(0.5, nan), with(0.5, 3), with(0.5, nan), with(0.5, 2)}),
            (Steps{999, 999, 20, 20, 40}));
  BestStep missing({});
  EXPECT_EQ(best_behind(missing, {with(0.5, 1), with({}, 0), with(0.6, 1)}), (Steps{0, 0, 20}));
}

TEST(BestStep, PatienceCountsEvaluationsInARowBehindTheBest) {
  BestStep best({});
  std::vector<bool> spent;
  for (const double accuracy : {0.5, 0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.7, 0.69}) {
    best.see(0, with(accuracy, 1));
    spent.push_back(best.is_spent(2));
    EXPECT_FALSE(best.is_spent({}));
  }
  EXPECT_EQ(spent, (std::vector<bool>{false, false, false, false, true, false, false, true, true}));
  // Without a best there is nothing to lose patience with.
  BestStep none(std::string("eval_loss"));
  for (int i = 0; i < 3; ++i) none.see(0, with(0.5, std::nan("")));
  EXPECT_FALSE(none.is_spent(1));
}

TEST(TakesBest, WithValidationDataUnlessRefused) {
  Config config;
  EXPECT_FALSE(takes_best(config));
  config.data.validation = "/v";
  EXPECT_TRUE(takes_best(config));
  config.train.load_best_model_at_end = false;
  EXPECT_FALSE(takes_best(config));
}

TEST(BestStep, EvaluationsComeBackFromTheFileAsTheyWere) {
  const test::ScratchFolder folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsFile file(path);
    file.append(10, 0.5, {.examples = 10, .accuracy = 1.0 / 3.0, .f1 = 2.0 / 7.0, .loss = 0.1}, 3);
    file.append(StepMetrics{.step = 15});
    file.append(20, 1.0, with({}, std::nan("")), 3);
    file.append(30, 1.5, with(0.9, 0.2), 3);
  }
  const std::vector<PastEvaluation> past = read_evaluations(path, 20);
  ASSERT_EQ(past.size(), 2u);
  EXPECT_EQ(past[0].steps_done, 10u);
  EXPECT_EQ(past[0].evaluation.accuracy, 1.0 / 3.0);
  EXPECT_EQ(past[0].evaluation.f1, 2.0 / 7.0);
  EXPECT_EQ(past[0].evaluation.loss, 0.1);
  EXPECT_EQ(past[1].evaluation.accuracy, std::nullopt);
  EXPECT_TRUE(std::isnan(past[1].evaluation.loss));
  EXPECT_EQ(best_of(past, {}).best()->steps_done, 10u);
  EXPECT_EQ(best_of(read_evaluations(path, 30), {}).best()->steps_done, 30u);
}

TEST(BestStep, OfGenerationsIsThatOfTheBestReward) {
  const test::ScratchFolder folder;
  const std::string path = folder / "metrics.jsonl";
  {
    MetricsFile file(path);
    file.append(10, 0.5, {.examples = 4, .accuracy = 0.5, .reward = 1.0 / 7.0, .loss = -1.0 / 7.0}, 3);
    file.append(20, 1.0, {.examples = 4, .accuracy = 0.25, .reward = 2.0 / 7.0, .loss = -2.0 / 7.0}, 3);
  }
  const std::vector<PastEvaluation> past = read_evaluations(path, 20);
  EXPECT_EQ(past.at(0).evaluation.reward, 1.0 / 7.0);
  EXPECT_EQ(best_of(past, {}).best()->steps_done, 20u);
  EXPECT_EQ(best_of(past, "accuracy").best()->steps_done, 10u);
}

TEST(TrainerState, NamesTheStep) {
  const test::ScratchFolder folder;
  EXPECT_EQ(read_trainer_step(folder.path()), std::nullopt);
  write_trainer_state(folder.path(), 40, BestNote{.metric = "eval_f1", .value = 0.5});
  EXPECT_EQ(read_trainer_step(folder.path()), 40u);
  write_trainer_state(folder.path(), 0, std::nullopt);
  EXPECT_EQ(read_trainer_step(folder.path()), 0u);
  for (const char* text : {"", "[]", "{}", R"({"global_step": -1})", R"({"global_step": "4"})"}) {
    folder.write("trainer_state.json", text);
    EXPECT_THROW(static_cast<void>(read_trainer_step(folder.path())), InputError) << text;
  }
  remove_trainer_state(folder.path());
  EXPECT_EQ(read_trainer_step(folder.path()), std::nullopt);
}

}  // namespace
}  // namespace mezzo
