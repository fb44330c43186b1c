#include "mezzo/train/divergence_watch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

namespace mezzo {
namespace {

constexpr double ln2 = 0.6931471805599453;
constexpr std::uint64_t window = DivergenceWatch::window;

/// Batches' losses around `mean`, one above it and one below in turn.
class Steps {
 public:
  explicit Steps(DivergenceWatch& watch) : watch_(watch) {}

  /// The steps with a warning.
  std::vector<std::uint64_t> take(std::uint64_t count, double mean, double spread = 0.05) {
    std::vector<std::uint64_t> warned;
    for (std::uint64_t i = 0; i < count; ++i) {
      ++done_;
      if (auto text = watch_.see_step(done_, mean + (done_ % 2 == 0 ? spread : -spread))) {
        warned.push_back(done_);
        last = *text;
      }
    }
    return warned;
  }

  std::string last;

 private:
  DivergenceWatch& watch_;
  std::uint64_t done_ = 0;
};

DivergenceWatch two_classes() { return {{.loss = ln2}, {.accuracy = 0.51}}; }

using Warnings = std::vector<std::uint64_t>;

TEST(DivergenceWatch, SaysNothingOfARunThatLearnsOrStands) {
  DivergenceWatch watch = two_classes();
  Steps steps(watch);
  EXPECT_EQ(steps.take(100, 0.70), Warnings{});
  EXPECT_EQ(steps.take(100, 0.55), Warnings{});
  EXPECT_EQ(steps.take(100, 0.60), Warnings{});  // worse than it was, but not as bad as at first
}

TEST(DivergenceWatch, NoticesALossAboveThatOfTheFirstSteps) {
  DivergenceWatch watch({}, {});
  Steps steps(watch);
  EXPECT_EQ(steps.take(100, 3.0), Warnings{});
  const Warnings warned = steps.take(100, 3.3);
  ASSERT_EQ(warned.size(), 1u);
  EXPECT_LE(warned[0], 100 + window);
  EXPECT_EQ(steps.last.find("step "), 0u);
  EXPECT_NE(steps.last.find("20 steps was 3 at first and is 3."), std::string::npos) << steps.last;
}

TEST(DivergenceWatch, KnowsBatchesFromDivergence) {
  DivergenceWatch watch({}, {});
  Steps steps(watch);
  EXPECT_EQ(steps.take(100, 3.0, 1.0), Warnings{});
  EXPECT_EQ(steps.take(100, 3.3, 1.0), Warnings{});  // within what batches like these differ by
  EXPECT_EQ(steps.take(100, 6.0, 1.0).size(), 1u);
}

TEST(DivergenceWatch, NoticesAnExplosionInTheFirstWindow) {
  DivergenceWatch watch({.loss = std::log(3.0)}, {});
  EXPECT_FALSE(watch.see_step(1, 1.1));
  Warnings warned;
  for (std::uint64_t step = 2; step <= 40; ++step) {
    if (watch.see_step(step, step % 2 == 0 ? 2.0 : 4.0)) warned.push_back(step);
  }
  EXPECT_EQ(warned, Warnings{window});
}

TEST(DivergenceWatch, NoticesAFallBackToChance) {
  DivergenceWatch watch = two_classes();
  Steps steps(watch);
  EXPECT_EQ(steps.take(40, 0.75), Warnings{});
  EXPECT_EQ(steps.take(60, 0.45), Warnings{});
  EXPECT_EQ(steps.take(40, 0.70).size(), 1u);  // below the first steps' loss
  EXPECT_NE(steps.last.find("where chance has 0.6931"), std::string::npos) << steps.last;
  // A loss without a chance, such as a language model's, has no such fall.
  DivergenceWatch other({}, {});
  Steps same(other);
  same.take(40, 0.75);
  same.take(60, 0.45);
  EXPECT_EQ(same.take(40, 0.70), Warnings{});
}

TEST(DivergenceWatch, WarnsAgainOnlyAfterTheRunWasWell) {
  DivergenceWatch watch = two_classes();
  Steps steps(watch);
  steps.take(100, 0.45);
  EXPECT_EQ(steps.take(200, 0.70).size(), 1u);
  EXPECT_EQ(steps.take(100, 0.45), Warnings{});
  EXPECT_EQ(steps.take(100, 0.70).size(), 1u);
  watch.rearm();
  EXPECT_EQ(steps.take(1, 0.70).size(), 1u);
}

TEST(DivergenceWatch, PassesOverWhatIsNotFinite) {
  DivergenceWatch watch = two_classes();
  Steps steps(watch);
  steps.take(40, 0.45);
  EXPECT_FALSE(watch.see_step(41, std::nan("")));
  EXPECT_EQ(steps.take(40, 0.70).size(), 1u);
}

Evaluation evaluation(double accuracy, double loss) {
  return {.examples = 872, .accuracy = accuracy, .loss = loss};
}

// SST-2, N 16, learning rate 2e-2, as it was measured.
TEST(DivergenceWatch, NoticesAnAccuracyBackAtChance) {
  DivergenceWatch watch = two_classes();
  EXPECT_FALSE(watch.see_evaluation(0, evaluation(0.541, 0.72)));
  EXPECT_FALSE(watch.see_evaluation(100, evaluation(0.79, 0.48)));
  EXPECT_FALSE(watch.see_evaluation(150, evaluation(0.75, 0.80)));  // sure of what it has wrong
  const auto warning = watch.see_evaluation(200, evaluation(0.49, 0.70));
  ASSERT_TRUE(warning);
  EXPECT_NE(warning->find("the accuracy was 0.79 and is 0.49 now, where chance has 0.51"), std::string::npos)
      << *warning;
  EXPECT_FALSE(watch.see_evaluation(300, evaluation(0.49, 0.70)));
}

TEST(DivergenceWatch, NoticesAnEvaluationWorseThanTheFirst) {
  DivergenceWatch watch = two_classes();
  EXPECT_FALSE(watch.see_evaluation(0, evaluation(0.541, 0.72)));
  EXPECT_FALSE(watch.see_evaluation(100, evaluation(0.541, 0.725)));  // by a hair
  EXPECT_FALSE(watch.see_evaluation(200, evaluation(0.60, 0.90)));
  EXPECT_TRUE(watch.see_evaluation(300, evaluation(0.54, 0.90)));
  EXPECT_FALSE(watch.see_evaluation(400, evaluation(0.60, 0.60)));
  EXPECT_TRUE(watch.see_evaluation(500, evaluation(0.54, std::nan(""))));
  DivergenceWatch completion({}, {});
  EXPECT_FALSE(completion.see_evaluation(0, {.examples = 10, .accuracy = {}, .loss = 2.0}));
  EXPECT_TRUE(completion.see_evaluation(1, {.examples = 10, .accuracy = {}, .loss = 2.1}));
}

}  // namespace
}  // namespace mezzo
