#include "mezzo/zo/estimator.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

/// The two losses whose difference along a direction is measured.
struct Difference {
  double plus = 0.0;   ///< L(+eps z)
  double other = 0.0;  ///< L(-eps z) or L(0)
  bool good = true;
  std::optional<double> variance = {};  ///< of value(); none with fewer than two slices

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

/// Square root of the sum of squares around the mean over one less than their number; two or more values.
double sample_deviation(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0.0;
  for (const double value : values) sum += value;
  const double mean = sum / count;
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (count - 1.0));
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

constexpr double dropped = std::numeric_limits<double>::quiet_NaN();

class FiniteDifference : public Estimator {
 protected:
  FiniteDifference(double epsilon, Normalization normalize) : epsilon_(epsilon), normalize_(normalize) {}

  double epsilon() const { return epsilon_; }
  /// `distance`: between the two points of a difference. `paired`: both are perturbed. `loss_sum` over
  /// `loss_count`: the loss at the unperturbed point.
  Estimate estimate_of(std::vector<Difference> differences, double distance, bool paired, double loss_sum,
                       std::int64_t loss_count) const {
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
    const std::vector<double> steps = steps_of(good, distance, paired);
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
  /// n c_k of the n good directions; empty where there is nothing to normalize by.
  std::vector<double> steps_of(const std::vector<Difference>& good, double distance, bool paired) const {
    std::vector<double> steps;
    if (normalize_ == Normalization::none) {
      for (const Difference& difference : good) steps.push_back(difference.value() / distance);
      return steps;
    }
    if (good.size() < 2) return {};
    std::vector<double> perturbed;  // [n] or, paired, [n][plus, minus]
    for (const Difference& difference : good) {
      perturbed.push_back(difference.plus);
      if (paired) perturbed.push_back(difference.other);
    }
    if (std::ranges::min(perturbed) == std::ranges::max(perturbed)) return {};
    if (normalize_ == Normalization::ranks) {
      const std::vector<double> ranks = centred_ranks(perturbed);
      for (std::size_t k = 0; k < good.size(); ++k)
        steps.push_back(paired ? ranks[2 * k] - ranks[2 * k + 1] : ranks[k]);
      return steps;
    }
    const double deviation = sample_deviation(perturbed);
    for (const Difference& difference : good) steps.push_back(difference.value() / deviation);
    return steps;
  }

  double epsilon_;
  Normalization normalize_;
};

class TwoSided final : public FiniteDifference {
 public:
  TwoSided(double epsilon, Normalization normalize, bool curvature)
      : FiniteDifference(epsilon, normalize), curvature_(curvature) {}

  std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const override {
    std::vector<Probe> probes;
    for (std::uint32_t k = 0; k < seeds.size(); ++k) {
      for (const double sign : {1.0, -1.0}) {
        probes.push_back({.seed = seeds[k], .direction = k, .epsilon = static_cast<float>(sign * epsilon())});
      }
    }
    if (curvature_) {
      // With epsilon 0 no noise is used: the seed is one that the probe before it has.
      const auto last = static_cast<std::uint32_t>(seeds.size() - 1);
      probes.push_back({.seed = seeds[last], .direction = last, .epsilon = 0.0f});
    }
    return probes;
  }

  Estimate estimate(std::span<const ProbeLoss> losses) const override {
    std::vector<Difference> differences;
    double loss_sum = 0.0;
    std::int64_t loss_count = 0;
    const bool has_base = !curvature_ || losses.back().good;
    double squares = 0.0;  // of what a direction's two losses have above L(0)
    for (std::size_t i = 0; i + 1 < losses.size(); i += 2) {
      const ProbeLoss& plus = losses[i];
      const ProbeLoss& minus = losses[i + 1];
      differences.push_back(difference_of(plus, minus));
      differences.back().good &= has_base;
      if (!differences.back().good) continue;
      const double middle = 0.5 * (plus.mean() + minus.mean());
      loss_sum += middle;
      ++loss_count;
      if (curvature_) squares += (middle - losses.back().mean()) * (middle - losses.back().mean());
    }
    Estimate estimate = estimate_of(std::move(differences), 2.0 * epsilon(), true, loss_sum, loss_count);
    if (curvature_ && loss_count > 0)
      estimate.curvature = std::sqrt(squares / static_cast<double>(loss_count)) / (epsilon() * epsilon());
    return estimate;
  }

 private:
  bool curvature_;
};

class OneSided final : public FiniteDifference {
 public:
  OneSided(double epsilon, Normalization normalize) : FiniteDifference(epsilon, normalize) {}

  std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const override {
    std::vector<Probe> probes;
    // The unperturbed probe carries the first direction's seed: with epsilon 0 no noise is used.
    probes.push_back({.seed = seeds[0], .direction = 0, .epsilon = 0.0f});
    for (std::uint32_t k = 0; k < seeds.size(); ++k) {
      probes.push_back({.seed = seeds[k], .direction = k, .epsilon = static_cast<float>(epsilon())});
    }
    return probes;
  }

  Estimate estimate(std::span<const ProbeLoss> losses) const override {
    const ProbeLoss& base = losses[0];
    std::vector<Difference> differences;
    for (const ProbeLoss& plus : losses.subspan(1)) differences.push_back(difference_of(plus, base));
    return estimate_of(std::move(differences), epsilon(), false, base.good ? base.mean() : 0.0,
                       base.good ? 1 : 0);
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
                                          bool curvature) {
  switch (kind) {
    case EstimatorKind::two_sided:
      return std::make_unique<TwoSided>(epsilon, normalize, curvature);
    case EstimatorKind::one_sided:
      if (curvature) throw Error("a one-sided estimator was to estimate the curvature");
      return std::make_unique<OneSided>(epsilon, normalize);
  }
  throw Error("the estimator {} is not built", static_cast<int>(kind));
}

}  // namespace mezzo
