#include "mezzo/zo/estimator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "mezzo/core/error.h"
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

TEST(Estimator, ProbesForTheCurvatureEndWithTheUnperturbedOne) {
  const std::uint64_t seeds[] = {11, 22};
  const auto estimator =
      make_estimator(EstimatorKind::two_sided, epsilon, Normalization::none, /*curvature=*/true);
  const std::vector<Probe> probes = estimator->probes(seeds);
  ASSERT_EQ(probes.size(), 5u);
  EXPECT_EQ(probes[3].epsilon, -0.01f);
  EXPECT_EQ(probes[4].epsilon, 0.0f);
  EXPECT_EQ(probes[4].seed, 22u);  // a seed that its neighbours have: their noise is shared
  EXPECT_EQ(probes[4].direction, 1u);
  EXPECT_THROW(make_estimator(EstimatorKind::one_sided, epsilon, Normalization::none, true), Error);
}

// Above L(0) = 1 the two directions' middles are 0.5 and 1.5: root mean square sqrt(1.25).
TEST(Estimator, CurvatureIsWhatBothSidesHaveAboveTheMiddle) {
  const auto estimator = make_estimator(EstimatorKind::two_sided, 0.5, Normalization::none, true);
  std::vector<ProbeLoss> losses = {loss(2.0), loss(1.0), loss(4.0), loss(1.0), loss(2.0, 2.0)};
  const Estimate estimate = estimator->estimate(losses);
  ASSERT_TRUE(estimate.curvature);
  EXPECT_DOUBLE_EQ(*estimate.curvature, std::sqrt((0.25 + 2.25) / 2.0) / 0.25);
  EXPECT_DOUBLE_EQ(estimate.bend.value(), (0.5 + 1.5) / 2.0 / 0.25);
  const auto without = make_estimator(EstimatorKind::two_sided, 0.5);
  losses.pop_back();
  EXPECT_EQ(estimate.coefficients, without->estimate(losses).coefficients);
  EXPECT_FALSE(without->estimate(losses).curvature);
  // Without L(0) nothing is known of the step's size.
  losses.push_back(loss(1.0, 1.0, false));
  EXPECT_EQ(estimator->estimate(losses).dropped, 2);
  EXPECT_FALSE(estimator->estimate(losses).curvature);
}

// Along z the quadratic x'Dx / 2 bends by z'Dz / 2, wherever it is and whatever eps.
TEST(Estimator, CurvatureOfAQuadraticIsExact) {
  constexpr int n = 5;
  const double d[n] = {1.0, 3.0, 0.5, 2.0, 4.0};
  const auto estimator = make_estimator(EstimatorKind::two_sided, epsilon, Normalization::zscore, true);
  const std::uint64_t seeds[] = {7};
  std::vector<ProbeLoss> losses;
  for (const Probe& probe : estimator->probes(seeds)) {
    double value = 0.0;
    for (int i = 0; i < n; ++i) {
      const double step = probe.epsilon == 0.0f ? 0.0 : std::copysign(epsilon, double{probe.epsilon});
      const double x =
          1.0 + step * double{noise_at(NoiseKind::gaussian, 7, 0, static_cast<std::uint64_t>(i))};
      value += 0.5 * d[i] * x * x;
    }
    losses.push_back(loss(value));
  }
  double exact = 0.0;
  for (int i = 0; i < n; ++i) {
    const double z = double{noise_at(NoiseKind::gaussian, 7, 0, static_cast<std::uint64_t>(i))};
    exact += 0.5 * d[i] * z * z;
  }
  EXPECT_NEAR(estimator->estimate(losses).curvature.value(), exact, 1e-9);
}

/// A probe's loss of slices, each (sum, weight).
ProbeLoss sliced(const std::vector<ProbeLoss::Slice>& slices) {
  ProbeLoss loss{.slices = slices};
  for (const ProbeLoss::Slice& slice : slices) {
    loss.sum += slice.sum;
    loss.weight += slice.weight;
  }
  return loss;
}

// Of weights 1 and 3 (W = 4). Direction 1: sums differ by 3 and 5, d = 2, rests 1 and -1, v = 2 * 2 / 16.
// Direction 2: by -1 and 1, d = 0, rests -1 and 1, the same v. sum d^2 = 4.
TEST(Estimator, SignalToNoiseIsDifferencesOverTheirSpreadBetweenSlices) {
  const ProbeLoss base = sliced({{1.0, 1.0}, {2.0, 3.0}});
  const ProbeLoss first = sliced({{4.0, 1.0}, {7.0, 3.0}});
  const ProbeLoss second = sliced({{0.0, 1.0}, {3.0, 3.0}});
  const auto ratio = [](EstimatorKind kind, const std::vector<ProbeLoss>& losses,
                        Normalization normalize = Normalization::none, bool curvature = false) {
    return make_estimator(kind, epsilon, normalize, curvature)->estimate(losses).signal_to_noise;
  };
  const std::vector<ProbeLoss> losses = {first, base, second, base};
  ASSERT_TRUE(ratio(EstimatorKind::two_sided, losses));
  EXPECT_DOUBLE_EQ(*ratio(EstimatorKind::two_sided, losses), std::sqrt(4.0 / 0.5));
  EXPECT_DOUBLE_EQ(*ratio(EstimatorKind::two_sided, losses, Normalization::zscore), std::sqrt(8.0));
  EXPECT_DOUBLE_EQ(*ratio(EstimatorKind::two_sided, {first, base, second, base, base}, Normalization::none,
                          /*curvature=*/true),
                   std::sqrt(8.0));  // the unperturbed loss is in no difference
  EXPECT_DOUBLE_EQ(*ratio(EstimatorKind::one_sided, {base, first, second}), std::sqrt(8.0));
  // One direction has slices too, and a direction that is dropped counts for nothing.
  EXPECT_DOUBLE_EQ(*ratio(EstimatorKind::two_sided, {first, base}), std::sqrt(4.0 / 0.25));
  ProbeLoss bad = second;
  bad.good = false;
  EXPECT_DOUBLE_EQ(*ratio(EstimatorKind::two_sided, {first, base, bad, base}), std::sqrt(4.0 / 0.25));
  EXPECT_FALSE(ratio(EstimatorKind::two_sided, {bad, base}));
  EXPECT_FALSE(ratio(EstimatorKind::two_sided, {base, base}));  // no differences at all
  EXPECT_FALSE(ratio(EstimatorKind::two_sided, {sliced({{4.0, 1.0}}), sliced({{1.0, 1.0}})}));
  EXPECT_FALSE(ratio(EstimatorKind::two_sided, {loss(2.0), loss(1.0)}));
}

/// The root mean square of the ratio over many steps of 4 directions with 5 slices of 2 examples. An
/// example's loss along a direction of noise z has the slope `slope` z, and an error of standard deviation 1.
double root_mean_square_ratio(double slope) {
  constexpr int steps = 3000;
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  const auto estimator = make_estimator(EstimatorKind::two_sided, epsilon);
  double squares = 0.0;
  for (int step = 0; step < steps; ++step) {
    std::vector<ProbeLoss> losses;
    for (int k = 0; k < 4; ++k) {
      const double z = normal(random);
      const double bend = 100.0 * normal(random);  // the same on both sides
      for (const double sign : {1.0, -1.0}) {
        std::vector<ProbeLoss::Slice> slices;
        for (int s = 0; s < 5; ++s)
          slices.push_back(
              {2.0 * (sign * epsilon * slope * z + bend) + std::sqrt(2.0) * normal(random), 2.0});
        losses.push_back(sliced(slices));
      }
    }
    const double ratio = estimator->estimate(losses).signal_to_noise.value();
    squares += ratio * ratio;
  }
  return std::sqrt(squares / steps);
}

// The mean of F(4, 16) is 16 / 14. A difference 2 eps slope z over 10 examples of variance 2 makes it
// 1 + 20 (eps slope)^2 times as much. Tolerance: three standard errors.
TEST(Estimator, SignalToNoiseTellsASlopeFromErrors) {
  EXPECT_NEAR(root_mean_square_ratio(0.0), std::sqrt(16.0 / 14.0), 0.025);
  EXPECT_NEAR(root_mean_square_ratio(1.0 / epsilon), std::sqrt(21.0 * 16.0 / 14.0), 0.12);
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

constexpr Normalization normalizations[] = {Normalization::zscore, Normalization::std, Normalization::ranks};

// Differences 1 and -3 of the losses 2, 1 and 0, 3: mean 1.5, squares 0.25 + 0.25 + 2.25 + 2.25 over 3.
TEST(Estimator, ZscoreOfTwoDirections) {
  const std::vector<ProbeLoss> losses = {loss(2.0), loss(1.0), loss(0.0), loss(3.0)};
  const Estimate estimate =
      make_estimator(EstimatorKind::two_sided, epsilon, Normalization::zscore)->estimate(losses);
  const double s = std::sqrt(5.0 / 3.0);
  EXPECT_EQ(estimate.coefficients[0], static_cast<float>(1.0 / s / 2.0));
  EXPECT_EQ(estimate.coefficients[1], static_cast<float>(-3.0 / s / 2.0));
  EXPECT_DOUBLE_EQ(estimate.projected_gradient[0], 50.0);  // is reported as without
  EXPECT_DOUBLE_EQ(estimate.loss, 1.5);
  EXPECT_FALSE(estimate.flat);
}

// Base 1, losses 2, 4 and 0: mean 2, squares 0 + 4 + 4 over 2.
TEST(Estimator, StdIsOfThePerturbedLosses) {
  const std::vector<ProbeLoss> losses = {loss(1.0), loss(2.0), loss(4.0), loss(0.0)};
  const Estimate estimate =
      make_estimator(EstimatorKind::one_sided, epsilon, Normalization::std)->estimate(losses);
  for (const auto& [k, difference] : {std::pair(0, 1.0), std::pair(1, 3.0), std::pair(2, -1.0)})
    EXPECT_EQ(estimate.coefficients[k], static_cast<float>(difference / 2.0 / 3.0)) << k;
}

// Of 5, 1, 1, 9 the ranks are 2, 0.5, 0.5 and 3 of 0 to 3.
TEST(Estimator, RanksShareTheirPlace) {
  const std::vector<ProbeLoss> losses = {loss(5.0), loss(1.0), loss(1.0), loss(9.0)};
  const Estimate two_sided =
      make_estimator(EstimatorKind::two_sided, epsilon, Normalization::ranks)->estimate(losses);
  EXPECT_FLOAT_EQ(two_sided.coefficients[0], 1.5f / 3.0f / 2.0f);
  EXPECT_FLOAT_EQ(two_sided.coefficients[1], -2.5f / 3.0f / 2.0f);
  std::vector<ProbeLoss> with_base = losses;
  with_base.insert(with_base.begin(), loss(100.0));
  const Estimate one_sided =
      make_estimator(EstimatorKind::one_sided, epsilon, Normalization::ranks)->estimate(with_base);
  EXPECT_FLOAT_EQ(one_sided.coefficients[0], (2.0f / 3.0f - 0.5f) / 4.0f);
  EXPECT_FLOAT_EQ(one_sided.coefficients[1], (0.5f / 3.0f - 0.5f) / 4.0f);
  EXPECT_FLOAT_EQ(one_sided.coefficients[3], 0.5f / 4.0f);
}

// Losses times 1000 plus 7, and another epsilon: the same steps. Exact in powers of two.
TEST(Estimator, NormalizedStepsKnowNoScale) {
  const std::vector<double> values = {2.0, 1.25, 0.5, 3.0, 1.0, 2.5};
  for (const Normalization normalize : normalizations) {
    const EstimatorKind kind =
        normalize == Normalization::std ? EstimatorKind::one_sided : EstimatorKind::two_sided;
    std::vector<ProbeLoss> losses;
    std::vector<ProbeLoss> scaled;
    for (const double value : values) {
      losses.push_back(loss(value));
      scaled.push_back(loss(1024.0 * value + 8.0));
    }
    EXPECT_EQ(make_estimator(kind, epsilon, normalize)->estimate(losses).coefficients,
              make_estimator(kind, 0.125, normalize)->estimate(scaled).coefficients);
  }
}

TEST(Estimator, NormalizesOverGoodDirectionsAlone) {
  const ProbeLoss bad = loss(std::nan(""), 1.0, false);
  const auto estimator = make_estimator(EstimatorKind::two_sided, epsilon, Normalization::zscore);
  const Estimate three =
      estimator->estimate(std::vector{loss(2.0), loss(1.0), bad, loss(5.0), loss(0.0), loss(3.0)});
  const Estimate two = estimator->estimate(std::vector{loss(2.0), loss(1.0), loss(0.0), loss(3.0)});
  EXPECT_EQ(three.coefficients, (std::vector{two.coefficients[0], 0.0f, two.coefficients[1]}));
  EXPECT_EQ(three.dropped, 1);
}

TEST(Estimator, NothingToNormalizeByIsNoStep) {
  const ProbeLoss bad = loss(std::nan(""), 1.0, false);
  for (const Normalization normalize : normalizations) {
    const bool one_sided = normalize == Normalization::std;
    const auto estimator =
        make_estimator(one_sided ? EstimatorKind::one_sided : EstimatorKind::two_sided, epsilon, normalize);
    std::vector<ProbeLoss> equal(4, loss(0.1, 3.0));
    std::vector<ProbeLoss> one_good = {loss(2.0), loss(1.0), bad, bad};
    if (one_sided) equal[0] = loss(1.0);  // the base's difference from them is no spread
    for (const std::vector<ProbeLoss>& losses : {equal, one_good}) {
      const Estimate estimate = estimator->estimate(losses);
      EXPECT_TRUE(estimate.flat);
      EXPECT_EQ(estimate.coefficients, std::vector<float>(estimate.coefficients.size(), 0.0f));
    }
  }
}

// A difference that is finite in double and not in fp32 must not reach the trainables as infinity.
TEST(Estimator, GradientBeyondFloatIsDropped) {
  const Estimate estimate = make_estimator(EstimatorKind::two_sided, epsilon)
                                ->estimate(std::vector<ProbeLoss>{loss(1e300), loss(-1e300)});
  EXPECT_EQ(estimate.dropped, 1);
  EXPECT_EQ(estimate.coefficients[0], 0.0f);
}

TEST(Clip, CutsEachDirectionsShareOfTheGoodOnes) {
  Estimate estimate;
  estimate.coefficients = {0.25f, -3.0f, 0.0f, 0.75f, -0.5f};
  estimate.projected_gradient = {1.0, -12.0, 0.0, 3.0, -2.0};
  estimate.dropped = 1;
  clip_coefficients(estimate, 2.0);  // of four good directions: at most 0.5 each
  EXPECT_EQ(estimate.coefficients, (std::vector<float>{0.25f, -0.5f, 0.0f, 0.5f, -0.5f}));
  EXPECT_EQ(estimate.projected_gradient[1], -12.0);
  estimate.dropped = 5;
  clip_coefficients(estimate, 0.1);
  EXPECT_EQ(estimate.coefficients[0], 0.25f);  // none is good: all are 0 then
}

}  // namespace
}  // namespace mezzo
