#include "mezzo/zo/step_limit.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mezzo {
namespace {

Estimate estimate_of(std::vector<float> coefficients, double loss, std::optional<double> curvature) {
  Estimate estimate;
  estimate.coefficients = std::move(coefficients);
  estimate.loss = loss;
  estimate.curvature = curvature;
  return estimate;
}

// With a rate of 1 an element gains the variance v a step; the loss then rises by curvature v: the rate is
// the root of what it may rise by over that.
TEST(StepLimit, RateOfEachRule) {
  const Estimate estimate = estimate_of({3.0f, -4.0f}, 0.5, 20.0);  // squares 25
  const auto rate = [&](const OptimizerConfig& config) {
    return limited_rate(estimate, *configure_optimizer(config), 1e-2).value();
  };
  EXPECT_DOUBLE_EQ(rate({}), std::sqrt(1e-2 * 0.5 / (20.0 * 25.0)));
  // m goes on for 1 / (1 - 0.5) of a step, as a float's 0.5 does exactly.
  EXPECT_DOUBLE_EQ(rate({.type = OptimizerType::momentum, .momentum = 0.5}),
                   std::sqrt(1e-2 * 0.5 / (20.0 * 25.0 * 4.0)));
  // Signs: 1 a step, and neighbours that agree: (1 + 0.5) / (1 - 0.5).
  EXPECT_DOUBLE_EQ(rate({.type = OptimizerType::sign, .momentum = 0.5}),
                   std::sqrt(1e-2 * 0.5 / (20.0 * 3.0)));
  EXPECT_DOUBLE_EQ(rate({.type = OptimizerType::adam}), std::sqrt(1e-2 * 0.5 / 20.0));
}

TEST(StepLimit, IsNoneWhereThereIsNothingToLimit) {
  const auto sgd = configure_optimizer({});
  EXPECT_FALSE(limited_rate(estimate_of({1.0f}, 0.5, {}), *sgd, 0.1));
  EXPECT_FALSE(limited_rate(estimate_of({1.0f}, 0.5, 0.0), *sgd, 0.1));
  EXPECT_FALSE(limited_rate(estimate_of({0.0f}, 0.5, 20.0), *sgd, 0.1));
}

/// A walk of random signs at the limited rate raises x'x / 2 by the share, on average: 4000 steps of 100
/// numbers, each of curvature n / 2. The mean of the rise is known to about 100^-1/2 of itself.
TEST(StepLimit, AWalkOfNoiseRisesByTheShare) {
  constexpr int n = 100, steps = 4000;
  const Estimate estimate = estimate_of({1.0f}, 1.0, 0.5 * n);
  const double share = 0.2 / steps;
  const double rate = limited_rate(estimate, *configure_optimizer({}), share).value();
  std::vector<double> x(n, 0.0);
  for (int t = 0; t < steps; ++t) {
    for (int i = 0; i < n; ++i) {
      x[std::size_t(i)] -=
          rate * double{noise_at(NoiseKind::gaussian, std::uint64_t(t), 0, std::uint64_t(i))};
    }
  }
  double rise = 0.0;
  for (const double each : x) rise += 0.5 * each * each;
  EXPECT_NEAR(rise, 0.2, 0.06);
}

}  // namespace
}  // namespace mezzo
