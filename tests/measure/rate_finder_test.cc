#include "mezzo/measure/rate_finder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace mezzo {
namespace {

/// A trial of 90 steps from 1e-6 to 1, with `loss` of a rate and some noise.
std::vector<RateStep> trial(const std::function<double(double)>& loss, double noise, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::vector<RateStep> steps;
  const RateRange range;
  for (std::int64_t i = 0; i < range.steps; ++i) {
    const double wiggle = static_cast<double>(generator()) / 4294967296.0 - 0.5;
    steps.push_back({range.at(i), loss(range.at(i)) + noise * wiggle});
  }
  return steps;
}

/// Falls towards 1e-2 and rises steeply behind it.
double usual(double rate) {
  if (rate <= 1e-2) return 0.7 - 0.3 * std::sqrt(rate / 1e-2);
  return 0.4 + 0.5 * std::log10(rate / 1e-2);
}

TEST(RateRange, RisesInEqualRatios) {
  const RateRange range{.lowest = 1e-4, .highest = 1.0, .steps = 5};
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(range.at(i), std::pow(10.0, i - 4), 1e-12) << i;
}

TEST(RateFinder, RecommendsATenthOfWhereTheLossIsLeast) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    for (const double noise : {0.0, 0.05, 0.2}) {
      const RateAdvice advice = advise(trial(usual, noise, seed));
      ASSERT_TRUE(advice.diverges_at.has_value()) << seed << " " << noise;
      EXPECT_GT(*advice.diverges_at, 0.9e-2) << seed << " " << noise;
      EXPECT_LT(*advice.diverges_at, 5e-2) << seed << " " << noise;
      EXPECT_GT(*advice.least_at, 2e-3) << seed << " " << noise;
      EXPECT_LT(*advice.least_at, 2.5e-2) << seed << " " << noise;
      EXPECT_LT(*advice.least_at, *advice.diverges_at);
      EXPECT_NEAR(*advice.recommended, 0.1 * *advice.least_at, 0.005 * *advice.least_at);
    }
  }
}

TEST(RateFinder, NoiseAloneIsNoDivergence) {
  for (unsigned seed = 1; seed <= 200; ++seed)
    EXPECT_FALSE(advise(trial([](double) { return 0.7; }, 0.4, seed)).diverges_at) << seed;
  EXPECT_FALSE(advise(trial([](double rate) { return 0.7 - 0.4 * rate; }, 0.1)).recommended);
}

TEST(RateFinder, ARiseThatPassesIsNoDivergence) {
  const auto loss = [](double rate) { return rate > 1e-4 && rate < 1e-3 ? 1.5 : usual(rate); };
  EXPECT_GT(advise(trial(loss, 0.02)).diverges_at.value(), 0.9e-2);
}

TEST(RateFinder, WhatIsNotFiniteDiverges) {
  std::vector<RateStep> steps = trial([](double) { return 0.7; }, 0.1);
  steps[60].loss = std::numeric_limits<double>::quiet_NaN();
  const RateAdvice advice = advise(steps);
  EXPECT_EQ(advice.diverges_at, steps[60].learning_rate);
  EXPECT_GT(advice.least_at.value(), steps[40].learning_rate);  // not where noise alone was least
  EXPECT_EQ(advice.smoothed.size(), steps.size());
  EXPECT_TRUE(std::isfinite(advice.smoothed[59]));
  EXPECT_TRUE(std::isinf(advice.smoothed[61]));
  steps.resize(1);
  steps[0].loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(advise(steps).recommended);
}

TEST(RateFinder, SmoothedLossesAreMeansAroundAStep) {
  std::vector<RateStep> steps;
  for (int i = 0; i < 15; ++i) steps.push_back({1e-3, static_cast<double>(i * i)});
  const RateAdvice advice = advise(steps);
  for (const int i : {0, 1, 2}) EXPECT_EQ(advice.smoothed[i], (0.0 + 1.0 + 4.0 + 9.0 + 16.0) / 5.0);
  EXPECT_EQ(advice.smoothed[5], (9.0 + 16.0 + 25.0 + 36.0 + 49.0) / 5.0);
  for (const int i : {12, 13, 14})
    EXPECT_EQ(advice.smoothed[i], (100.0 + 121.0 + 144.0 + 169.0 + 196.0) / 5.0);
}

}  // namespace
}  // namespace mezzo
