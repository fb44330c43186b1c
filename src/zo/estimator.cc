#include "mezzo/zo/estimator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mezzo/core/error.h"
#include "mezzo/zo/running_spread.h"

namespace mezzo {

namespace {

/// The two losses whose difference along a direction is measured.
struct Difference {
  double plus = 0.0;   ///< L(+eps z)
  double other = 0.0;  ///< L(-eps z) or L(0)
  bool good = true;
  std::optional<double> variance = {};  ///< of value(); none with fewer than two slices
  double bend = 0.0;                    ///< what the mean of the two has above L(0), where that was asked for

  double value() const { return plus - other; }
};

/// v_k of Estimate::signal_to_noise.
std::optional<double> sampling_variance(const ProbeLoss& plus, const ProbeLoss& other) {
  const std::size_t slices = plus.slices.size();
  if (slices < 2) return {};
  const double difference = plus.mean() - other.mean();
  double squares = 0.0;
  for (std::size_t s = 0; s < slices; ++s) {
    const double rest = plus.slices[s].sum - other.slices[s].sum - plus.slices[s].weight * difference;
    squares += rest * rest;
  }
  const auto count = static_cast<double>(slices);
  return count / (count - 1.0) * squares / (plus.weight * plus.weight);
}

Difference difference_of(const ProbeLoss& plus, const ProbeLoss& other) {
  return {.plus = plus.mean(),
          .other = other.mean(),
          .good = plus.good && other.good,
          .variance = sampling_variance(plus, other)};
}

/// The sum of squares around the mean over one less than their number; two or more values.
double sample_variance(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0.0;
  for (const double value : values) sum += value;
  const double mean = sum / count;
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return squares / (count - 1.0);
}

/// Estimate::signal_to_noise of good differences.
std::optional<double> signal_to_noise(const std::vector<Difference>& differences) {
  double squares = 0.0;
  double variances = 0.0;
  for (const Difference& difference : differences) {
    if (!difference.variance) return {};
    squares += difference.value() * difference.value();
    variances += *difference.variance;
  }
  if (variances == 0.0) return {};
  return std::sqrt(squares / variances);
}

/// rank / (m - 1) - 1/2 of each of m >= 2 values. Equal ones have their mean rank.
std::vector<double> centred_ranks(const std::vector<double>& values) {
  std::vector<double> sorted = values;
  std::ranges::sort(sorted);
  std::vector<double> ranks;
  for (const double value : values) {
    const auto [first, last] = std::ranges::equal_range(sorted, value);
    const auto below = static_cast<double>(first - sorted.begin());
    const auto mean_rank = below + 0.5 * static_cast<double>(last - first - 1);
    ranks.push_back(mean_rank / static_cast<double>(values.size() - 1) - 0.5);
  }
  return ranks;
}

/// [n] the losses of all perturbed probes or, paired, [n][plus, minus].
std::vector<double> perturbed_of(const std::vector<Difference>& differences, bool paired) {
  std::vector<double> losses;
  for (const Difference& difference : differences) {
    losses.push_back(difference.plus);
    if (paired) losses.push_back(difference.other);
  }
  return losses;
}

/// The mean square of what differences have above L(0); one or more.
double mean_bend(const std::vector<Difference>& differences) {
  double squares = 0.0;
  for (const Difference& difference : differences) squares += difference.bend * difference.bend;
  return squares / static_cast<double>(differences.size());
}

constexpr double dropped = std::numeric_limits<double>::quiet_NaN();

/// What an estimator of differences is told.
struct Rule {
  double epsilon = 0.0;
  Normalization normalize = Normalization::none;
  bool curvature = false;
  std::optional<double> beta = {};  ///< of running means
};

class FiniteDifference : public Estimator {
 public:
  std::size_t state_size() const override { return rule_.beta ? RunningSpread::state_size : 0; }

 protected:
  explicit FiniteDifference(const Rule& rule) : rule_(rule) {}

  double epsilon() const { return rule_.epsilon; }
  bool curvature() const { return rule_.curvature; }
  /// `distance`: between the two points of a difference. `paired`: both are perturbed. `loss_sum` over
  /// `loss_count`: the loss at the unperturbed point.
  Estimate estimate_of(std::vector<Difference> differences, double distance, bool paired, double loss_sum,
                       std::int64_t loss_count, std::span<const double> state) const {
    Estimate estimate;
    std::vector<Difference> good;
    for (Difference& difference : differences) {
      double gradient = difference.value() / distance;
      // fp32 coefficients must be finite too: a gradient that overflows them is dropped like a loss that is
      // NaN.
      difference.good &= std::isfinite(gradient) && std::isfinite(static_cast<float>(gradient));
      if (difference.good) {
        good.push_back(difference);
      } else {
        gradient = 0.0;
        ++estimate.dropped;
      }
      estimate.projected_gradient.push_back(gradient);
    }
    if (curvature() && !good.empty()) {
      estimate.curvature = curvature_of(mean_bend(good));
      double sum = 0.0;
      for (const Difference& difference : good) sum += difference.bend;
      estimate.bend = sum / static_cast<double>(good.size()) / (epsilon() * epsilon());
    }
    const std::vector<double> steps =
        rule_.beta ? running_steps_of(good, paired, state, estimate) : steps_of(good, distance, paired);
    estimate.flat = !good.empty() && steps.empty();
    auto step = steps.begin();
    for (const Difference& difference : differences) {
      const bool moves = difference.good && !estimate.flat;
      estimate.coefficients.push_back(moves ? static_cast<float>(*step++ / static_cast<double>(good.size()))
                                            : 0.0f);
    }
    estimate.signal_to_noise = signal_to_noise(good);
    estimate.loss = loss_count > 0 ? loss_sum / static_cast<double>(loss_count) : dropped;
    return estimate;
  }

 private:
  double curvature_of(double bend) const { return std::sqrt(bend) / (epsilon() * epsilon()); }

  /// n c_k of the n good directions; empty where there is nothing to normalize by.
  std::vector<double> steps_of(const std::vector<Difference>& good, double distance, bool paired) const {
    if (rule_.normalize == Normalization::none) return over(good, distance);
    if (good.size() < 2) return {};
    const std::vector<double> perturbed = perturbed_of(good, paired);
    if (std::ranges::min(perturbed) == std::ranges::max(perturbed)) return {};
    if (rule_.normalize != Normalization::ranks) return over(good, std::sqrt(sample_variance(perturbed)));
    std::vector<double> steps;
    const std::vector<double> ranks = centred_ranks(perturbed);
    for (std::size_t k = 0; k < good.size(); ++k)
      steps.push_back(paired ? ranks[2 * k] - ranks[2 * k + 1] : ranks[k]);
    return steps;
  }

  /// The same by running means, which `estimate` takes over.
  std::vector<double> running_steps_of(const std::vector<Difference>& good, bool paired,
                                       std::span<const double> state, Estimate& estimate) const {
    RunningSpread running(*rule_.beta, state);
    estimate.state = running.state();
    if (good.empty()) return {};
    running.see(spread_of(good, paired));
    const Spread mean = running.mean();
    if (!std::isfinite(mean.variance + mean.squares + mean.bend) || mean.variance == 0.0) return {};
    estimate.state = running.state();
    estimate.mean_squares = mean.squares / mean.variance;
    if (curvature()) estimate.curvature = curvature_of(mean.bend);
    return over(good, std::sqrt(mean.variance));
  }

  Spread spread_of(const std::vector<Difference>& good, bool paired) const {
    Spread spread{.bend = mean_bend(good)};
    const auto count = static_cast<double>(good.size());
    for (const Difference& difference : good)
      spread.squares += difference.value() / count * (difference.value() / count);
    const std::vector<double> perturbed = perturbed_of(good, paired);
    spread.variance = perturbed.size() < 2 ? spread.squares : sample_variance(perturbed);
    return spread;
  }

  static std::vector<double> over(const std::vector<Difference>& good, double unit) {
    std::vector<double> steps;
    for (const Difference& difference : good) steps.push_back(difference.value() / unit);
    return steps;
  }

  Rule rule_;
};

class TwoSided final : public FiniteDifference {
 public:
  explicit TwoSided(const Rule& rule) : FiniteDifference(rule) {}

  std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const override {
    std::vector<Probe> probes;
    for (std::uint32_t k = 0; k < seeds.size(); ++k) {
      for (const double sign : {1.0, -1.0}) {
        probes.push_back({.seed = seeds[k], .direction = k, .epsilon = static_cast<float>(sign * epsilon())});
      }
    }
    if (curvature()) {
      // With epsilon 0 no noise is used: the seed is one that the probe before it has.
      const auto last = static_cast<std::uint32_t>(seeds.size() - 1);
      probes.push_back({.seed = seeds[last], .direction = last, .epsilon = 0.0f});
    }
    return probes;
  }

  Estimate estimate(std::span<const ProbeLoss> losses, std::span<const double> state) const override {
    std::vector<Difference> differences;
    double loss_sum = 0.0;
    std::int64_t loss_count = 0;
    const bool has_base = !curvature() || losses.back().good;
    for (std::size_t i = 0; i + 1 < losses.size(); i += 2) {
      const ProbeLoss& plus = losses[i];
      const ProbeLoss& minus = losses[i + 1];
      Difference& difference = differences.emplace_back(difference_of(plus, minus));
      difference.good &= has_base;
      if (!difference.good) continue;
      const double middle = 0.5 * (plus.mean() + minus.mean());
      loss_sum += middle;
      ++loss_count;
      if (curvature()) difference.bend = middle - losses.back().mean();
    }
    return estimate_of(std::move(differences), 2.0 * epsilon(), true, loss_sum, loss_count, state);
  }
};

class OneSided final : public FiniteDifference {
 public:
  explicit OneSided(const Rule& rule) : FiniteDifference(rule) {}

  std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const override {
    std::vector<Probe> probes;
    // The unperturbed probe carries the first direction's seed: with epsilon 0 no noise is used.
    probes.push_back({.seed = seeds[0], .direction = 0, .epsilon = 0.0f});
    for (std::uint32_t k = 0; k < seeds.size(); ++k) {
      probes.push_back({.seed = seeds[k], .direction = k, .epsilon = static_cast<float>(epsilon())});
    }
    return probes;
  }

  Estimate estimate(std::span<const ProbeLoss> losses, std::span<const double> state) const override {
    const ProbeLoss& base = losses[0];
    std::vector<Difference> differences;
    for (const ProbeLoss& plus : losses.subspan(1)) differences.push_back(difference_of(plus, base));
    return estimate_of(std::move(differences), epsilon(), false, base.good ? base.mean() : 0.0,
                       base.good ? 1 : 0, state);
  }
};

}  // namespace

double Estimate::gradient_norm() const {
  double squares = 0.0;
  for (const double g : projected_gradient) squares += g * g;
  return std::sqrt(squares);
}

void clip_coefficients(Estimate& estimate, double clip) {
  const auto good = static_cast<std::int64_t>(estimate.coefficients.size()) - estimate.dropped;
  if (good == 0) return;
  const auto limit = static_cast<float>(clip / static_cast<double>(good));
  for (float& c : estimate.coefficients) c = std::clamp(c, -limit, limit);
}

std::unique_ptr<Estimator> make_estimator(EstimatorKind kind, double epsilon, Normalization normalize,
                                          bool curvature, std::optional<double> beta) {
  if (beta && normalize != Normalization::zscore && normalize != Normalization::std)
    throw Error("an estimator was to keep running means for the normalization {}", name_of(normalize));
  const Rule rule{.epsilon = epsilon, .normalize = normalize, .curvature = curvature, .beta = beta};
  switch (kind) {
    case EstimatorKind::two_sided:
      return std::make_unique<TwoSided>(rule);
    case EstimatorKind::one_sided:
      if (curvature) throw Error("a one-sided estimator was to estimate the curvature");
      return std::make_unique<OneSided>(rule);
  }
  throw Error("the estimator {} is not built", static_cast<int>(kind));
}

}  // namespace mezzo
