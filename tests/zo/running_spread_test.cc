#include "mezzo/zo/running_spread.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/core/noise.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/step_limit.h"

namespace mezzo {
namespace {

constexpr double epsilon = 1e-2;

ProbeLoss loss(double value) { return {.sum = value, .weight = 1.0}; }
const ProbeLoss bad = {.sum = std::nan(""), .weight = 1.0, .good = false};

std::unique_ptr<Estimator> zscore(double beta, bool curvature = false) {
  return make_estimator(EstimatorKind::two_sided, epsilon, Normalization::zscore, curvature, beta);
}

// After q_1 and q_2 the mean is (beta q_1 + q_2) / (beta + 1), as if each step before counted beta times.
TEST(RunningSpread, MeansForgetByBeta) {
  RunningSpread running(0.5, {});
  running.see({.variance = 1.0, .squares = 8.0, .bend = 0.0});
  EXPECT_EQ(running.state(), (std::vector{0.5, 0.5, 4.0, 0.0}));
  EXPECT_EQ(running.mean().variance, 1.0);
  RunningSpread later(0.5, running.state());
  later.see({.variance = 4.0, .squares = 2.0, .bend = 3.0});
  EXPECT_DOUBLE_EQ(later.mean().variance, (0.5 * 1.0 + 4.0) / 1.5);
  EXPECT_DOUBLE_EQ(later.mean().squares, (0.5 * 8.0 + 2.0) / 1.5);
  EXPECT_DOUBLE_EQ(later.mean().bend, 3.0 / 1.5);
  const std::vector<double> three(3);
  EXPECT_THROW(RunningSpread(0.5, three), Error);
}

// Differences 1 and -3 of one direction each: s^2 is 1/2, then (1/2 * 1/2 + 9/2) / (3/2) = 19/6.
TEST(RunningSpread, NormalizesOneDirection) {
  const auto estimator = zscore(0.5);
  EXPECT_EQ(estimator->state_size(), RunningSpread::state_size);
  const Estimate first = estimator->estimate(std::vector{loss(2.0), loss(1.0)});
  EXPECT_EQ(first.coefficients, (std::vector{static_cast<float>(1.0 / std::sqrt(0.5))}));
  EXPECT_FALSE(first.flat);
  const Estimate second = estimator->estimate(std::vector{loss(0.0), loss(3.0)}, first.state);
  EXPECT_FLOAT_EQ(second.coefficients[0], static_cast<float>(-3.0 / std::sqrt(19.0 / 6.0)));
  // s^2 is half the mean of d^2: c^2 comes to 2, whatever the losses are.
  EXPECT_DOUBLE_EQ(second.mean_squares.value(), 2.0);
  // Without means a step has no state, and one direction no step.
  const auto own = make_estimator(EstimatorKind::two_sided, epsilon, Normalization::zscore);
  EXPECT_EQ(own->state_size(), 0u);
  EXPECT_TRUE(own->estimate(std::vector{loss(2.0), loss(1.0)}).flat);
  EXPECT_TRUE(own->estimate(std::vector{loss(2.0), loss(1.0)}).state.empty());
  EXPECT_FALSE(own->estimate(std::vector{loss(2.0), loss(1.0), loss(3.0), loss(5.0)}).mean_squares);
}

// Of one loss the spread is that around L(0).
TEST(RunningSpread, NormalizesOneDirectionOneSided) {
  const auto estimator = make_estimator(EstimatorKind::one_sided, epsilon, Normalization::std, false, 0.5);
  const Estimate first = estimator->estimate(std::vector{loss(1.0), loss(3.0)});
  EXPECT_EQ(first.coefficients, (std::vector{1.0f}));
  const Estimate second = estimator->estimate(std::vector{loss(1.0), loss(0.0)}, first.state);
  EXPECT_FLOAT_EQ(second.coefficients[0], static_cast<float>(-1.0 / std::sqrt((0.5 * 4.0 + 1.0) / 1.5)));
  EXPECT_DOUBLE_EQ(second.mean_squares.value(), 1.0);
}

// With beta 0 nothing stays of the steps before: the same bits as without means.
TEST(RunningSpread, WithoutMemoryItIsTheStepsOwn) {
  for (const bool paired : {true, false}) {
    const EstimatorKind kind = paired ? EstimatorKind::two_sided : EstimatorKind::one_sided;
    const Normalization normalize = paired ? Normalization::zscore : Normalization::std;
    const auto own = make_estimator(kind, epsilon, normalize, paired);
    const auto running = make_estimator(kind, epsilon, normalize, paired, 0.0);
    const std::vector losses = {loss(0.7), loss(0.3), loss(1.9), loss(0.1), loss(0.4)};
    const Estimate before =
        running->estimate(std::vector{loss(9.0), loss(1.0), loss(5.0), loss(2.0), loss(3.0)});
    const Estimate expected = own->estimate(losses);
    const Estimate found = running->estimate(losses, before.state);
    EXPECT_EQ(found.coefficients, expected.coefficients);
    EXPECT_EQ(found.curvature, expected.curvature);
    EXPECT_EQ(found.loss, expected.loss);
    EXPECT_EQ(found.projected_gradient, expected.projected_gradient);
  }
}

// L(x) = x'Dx / 2 + b'x: differences are 2 eps z'(Dx + b), and each c_t is, without any recursion,
// d_t over the root of the weighted mean of d_j^2 / 2. x follows from the steps.
TEST(RunningSpread, GoesDownAQuadraticAsByHand) {
  constexpr int n = 6, steps = 40;
  constexpr double beta = 0.75, rate = 0.02;
  const double d[n] = {1.0, 3.0, 0.5, 2.0, 4.0, 1.5};
  const double b[n] = {0.5, -1.0, 2.0, 0.0, -3.0, 1.0};
  std::vector<double> x(n, 1.0);
  const auto value = [&](const std::vector<double>& at) {
    double sum = 0.0;
    for (int i = 0; i < n; ++i)
      sum += 0.5 * d[i] * at[std::size_t(i)] * at[std::size_t(i)] + b[i] * at[std::size_t(i)];
    return sum;
  };
  const double start = value(x);
  const auto estimator = zscore(beta);
  std::vector<double> state;
  std::vector<double> differences;
  for (int t = 0; t < steps; ++t) {
    const std::uint64_t seeds[] = {std::uint64_t(t) + 100};
    const auto z = [&](int i) {
      return double{noise_at(NoiseKind::gaussian, seeds[0], 0, std::uint64_t(i))};
    };
    std::vector<ProbeLoss> losses;
    for (const Probe& probe : estimator->probes(seeds)) {
      std::vector<double> at = x;
      for (int i = 0; i < n; ++i) at[std::size_t(i)] += std::copysign(epsilon, double{probe.epsilon}) * z(i);
      losses.push_back(loss(value(at)));
    }
    const Estimate estimate = estimator->estimate(losses, state);
    state = estimate.state;
    double difference = 0.0;
    for (int i = 0; i < n; ++i) difference += 2.0 * epsilon * z(i) * (d[i] * x[std::size_t(i)] + b[i]);
    differences.push_back(difference);
    double squares = 0.0;
    double weights = 0.0;
    for (int j = 0; j <= t; ++j) {
      squares += std::pow(beta, t - j) * differences[std::size_t(j)] * differences[std::size_t(j)] / 2.0;
      weights += std::pow(beta, t - j);
    }
    const double exact = difference / std::sqrt(squares / weights);
    // fp32's rounding; losses of order 1 cancel to 1e-14 of differences of 1e-2 and more.
    EXPECT_NEAR(double{estimate.coefficients[0]}, exact, 2e-7 * std::abs(exact) + 1e-9) << t;
    for (int i = 0; i < n; ++i) x[std::size_t(i)] -= rate * double{estimate.coefficients[0]} * z(i);
  }
  EXPECT_LT(value(x), start - 3.0);
}

// Losses times 1024 plus 8, and another epsilon: the same steps, and the means of a scale of their own.
TEST(RunningSpread, StepsKnowNoScale) {
  const auto estimator = zscore(0.5);
  const auto other = make_estimator(EstimatorKind::two_sided, 0.125, Normalization::zscore, false, 0.5);
  std::vector<double> state;
  std::vector<double> other_state;
  for (const double value : {2.0, 1.25, 0.5, 3.0}) {
    const Estimate one = estimator->estimate(std::vector{loss(value), loss(1.0)}, state);
    const Estimate two = other->estimate(std::vector{loss(1024.0 * value + 8.0), loss(1032.0)}, other_state);
    EXPECT_EQ(one.coefficients, two.coefficients);
    state = one.state;
    other_state = two.state;
  }
  EXPECT_EQ(other_state[1], 1024.0 * 1024.0 * state[1]);
}

TEST(RunningSpread, AStepWithoutAGoodDirectionChangesNothing) {
  const auto estimator = zscore(0.5);
  const Estimate first = estimator->estimate(std::vector{loss(2.0), loss(1.0)});
  const Estimate dropped = estimator->estimate(std::vector{bad, loss(1.0)}, first.state);
  EXPECT_EQ(dropped.state, first.state);
  EXPECT_EQ(dropped.coefficients, std::vector{0.0f});
  EXPECT_FALSE(dropped.flat);
  // Nor does one whose spread is beyond fp64; the state stays one that a record may hold.
  const auto wide = make_estimator(EstimatorKind::two_sided, 1e200, Normalization::zscore, false, 0.5);
  const Estimate huge = wide->estimate(std::vector{loss(1e200), loss(-1e200)}, first.state);
  EXPECT_EQ(huge.dropped, 0);
  EXPECT_TRUE(huge.flat);
  EXPECT_EQ(huge.state, first.state);
}

TEST(RunningSpread, LossesThatAreTheSameAreNoStepUntilSomeDiffered) {
  const auto estimator = zscore(0.5);
  const Estimate first = estimator->estimate(std::vector{loss(1.0), loss(1.0)});
  EXPECT_TRUE(first.flat);
  EXPECT_EQ(first.coefficients, std::vector{0.0f});
  EXPECT_EQ(first.state, std::vector<double>(RunningSpread::state_size));
  const Estimate second = estimator->estimate(std::vector{loss(2.0), loss(1.0)}, first.state);
  EXPECT_FALSE(second.flat);
  const Estimate third = estimator->estimate(std::vector{loss(1.0), loss(1.0)}, second.state);
  EXPECT_FALSE(third.flat);
  EXPECT_EQ(third.coefficients, std::vector{0.0f});
  EXPECT_EQ(third.state[0], 0.5 * second.state[0] + 0.5);
}

// Middles 0.5 and then 1.5 above L(0) = 1: the mean square is (0.5 * 0.25 + 2.25) / 1.5. What a step's
// own c happens to be does not count in the limit.
TEST(RunningSpread, TheStepLimitTakesMeansToo) {
  const auto estimator = zscore(0.5, /*curvature=*/true);
  const Estimate first = estimator->estimate(std::vector{loss(2.0), loss(1.0), loss(1.0)});
  EXPECT_DOUBLE_EQ(first.curvature.value(), 0.5 / (epsilon * epsilon));
  const Estimate second = estimator->estimate(std::vector{loss(4.0), loss(1.0), loss(1.0)}, first.state);
  EXPECT_DOUBLE_EQ(second.curvature.value(), std::sqrt((0.5 * 0.25 + 2.25) / 1.5) / (epsilon * epsilon));
  EXPECT_DOUBLE_EQ(limited_rate(second, *configure_optimizer({}), 0.1).value(),
                   std::sqrt(0.1 * second.loss / (*second.curvature * 2.0)));
  const Estimate still = estimator->estimate(std::vector{loss(1.0), loss(1.0), loss(1.0)}, second.state);
  EXPECT_FALSE(limited_rate(still, *configure_optimizer({}), 0.1));  // no step, no limit
}

TEST(RunningSpread, IsOfDeviationsAlone) {
  for (const Normalization normalize : {Normalization::none, Normalization::ranks})
    EXPECT_THROW(make_estimator(EstimatorKind::two_sided, epsilon, normalize, false, 0.5), Error);
}

}  // namespace
}  // namespace mezzo
