#include "mezzo/zo/estimator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "mezzo/core/noise.h"

namespace mezzo {
namespace {

constexpr double epsilon = 1e-2;

ProbeLoss loss(double sum, double weight = 1.0, bool good = true) {
  return {.sum = sum, .weight = weight, .good = good};
}

TEST(Estimator, ProbesOfTwoSided) {
  const std::uint64_t seeds[] = {11, 22};
  const std::vector<Probe> probes = make_estimator(EstimatorKind::two_sided, epsilon)->probes(seeds);
  ASSERT_EQ(probes.size(), 4u);
  EXPECT_EQ(probes[2].seed, 22u);
  EXPECT_EQ(probes[2].direction, 1u);
  EXPECT_EQ(probes[2].epsilon, 0.01f);
  EXPECT_EQ(probes[3].epsilon, -0.01f);
}

TEST(Estimator, ProbesOfOneSided) {
  const std::uint64_t seeds[] = {11, 22};
  const std::vector<Probe> probes = make_estimator(EstimatorKind::one_sided, epsilon)->probes(seeds);
  ASSERT_EQ(probes.size(), 3u);
  EXPECT_EQ(probes[0].epsilon, 0.0f);
  EXPECT_EQ(probes[1].seed, 11u);
  EXPECT_EQ(probes[2].seed, 22u);
}

// L(x) = x'Dx / 2 + b'x: the two-sided difference is exact for a quadratic, g = z'(Dx + b); the one-sided one
// is off by eps z'Dz / 2. Tolerance: cancellation of two losses of order 1 in double, 1e-16 / eps.
TEST(Estimator, QuadraticIsExact) {
  constexpr int n = 33;
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  std::vector<double> d(n), b(n), x(n);
  for (int i = 0; i < n; ++i) {
    d[i] = std::abs(normal(random));
    b[i] = normal(random);
    x[i] = normal(random);
  }
  const auto value = [&](const std::vector<double>& at) {
    double sum = 0.0;
    for (int i = 0; i < n; ++i) sum += 0.5 * d[i] * at[i] * at[i] + b[i] * at[i];
    return sum;
  };
  const std::uint64_t seeds[] = {1, 2, 3};
  for (const EstimatorKind kind : {EstimatorKind::two_sided, EstimatorKind::one_sided}) {
    const auto estimator = make_estimator(kind, epsilon);
    std::vector<ProbeLoss> losses;
    for (const Probe& probe : estimator->probes(seeds)) {
      std::vector<double> at = x;
      const double step =
          probe.epsilon == 0.0f ? 0.0 : std::copysign(epsilon, static_cast<double>(probe.epsilon));
      for (int i = 0; i < n; ++i)
        at[i] += step * static_cast<double>(noise_at(NoiseKind::gaussian, probe.seed, 0, i));
      losses.push_back(loss(value(at) * 7.0, 7.0));  // sums over 7 examples
    }
    const Estimate estimate = estimator->estimate(losses);
    for (int k = 0; k < 3; ++k) {
      double exact = 0.0;
      double bend = 0.0;
      for (int i = 0; i < n; ++i) {
        const double z = static_cast<double>(noise_at(NoiseKind::gaussian, seeds[k], 0, i));
        exact += z * (d[i] * x[i] + b[i]);
        bend += 0.5 * epsilon * d[i] * z * z;
      }
      if (kind == EstimatorKind::one_sided) exact += bend;
      EXPECT_NEAR(estimate.projected_gradient[k], exact, 1e-11);
      EXPECT_EQ(estimate.coefficients[k], static_cast<float>(estimate.projected_gradient[k] / 3.0));
    }
    if (kind == EstimatorKind::one_sided) {
      EXPECT_NEAR(estimate.loss, value(x), 1e-12);
    }
  }
}

TEST(Estimator, DirectionWithoutFiniteLossIsDropped) {
  const auto estimator = make_estimator(EstimatorKind::two_sided, epsilon);
  const std::vector<ProbeLoss> losses = {loss(2.0), loss(1.0), loss(std::nan(""), 1.0, false),
                                         loss(1.0), loss(4.0), loss(1.0)};
  const Estimate estimate = estimator->estimate(losses);
  EXPECT_EQ(estimate.dropped, 1);
  EXPECT_EQ(estimate.coefficients[1], 0.0f);
  EXPECT_EQ(estimate.coefficients[0], static_cast<float>(50.0 / 2));  // over the two good directions
  EXPECT_EQ(estimate.coefficients[2], static_cast<float>(150.0 / 2));
  EXPECT_DOUBLE_EQ(estimate.loss, 2.0);
  EXPECT_DOUBLE_EQ(estimate.gradient_norm(), std::sqrt(50.0 * 50.0 + 150.0 * 150.0));
}

TEST(Estimator, AllDropped) {
  for (const EstimatorKind kind : {EstimatorKind::two_sided, EstimatorKind::one_sided}) {
    const Estimate estimate =
        make_estimator(kind, epsilon)->estimate(std::vector<ProbeLoss>{loss(1.0, 1.0, false), loss(1.0)});
    EXPECT_EQ(estimate.dropped, 1);
    EXPECT_EQ(estimate.coefficients[0], 0.0f);
    EXPECT_TRUE(std::isnan(estimate.loss));
  }
}

// A difference that is finite in double and not in fp32 must not reach the trainables as infinity.
TEST(Estimator, GradientBeyondFloatIsDropped) {
  const Estimate estimate = make_estimator(EstimatorKind::two_sided, epsilon)
                                ->estimate(std::vector<ProbeLoss>{loss(1e300), loss(-1e300)});
  EXPECT_EQ(estimate.dropped, 1);
  EXPECT_EQ(estimate.coefficients[0], 0.0f);
}

}  // namespace
}  // namespace mezzo
