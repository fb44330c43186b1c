#include "mezzo/zo/estimator.h"

#include <cmath>
#include <limits>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

/// Gradients and losses of the good directions -> Estimate. `gradients[k]` is NaN for a dropped direction.
Estimate finish(std::vector<double> gradients, double loss_sum, std::int64_t loss_count) {
  Estimate estimate;
  const auto directions = gradients.size();
  std::int64_t good = 0;
  for (double& gradient : gradients) {
    // fp32 coefficients must be finite too: a gradient that overflows them is dropped like a loss that is
    // NaN.
    if (std::isfinite(gradient) && std::isfinite(static_cast<float>(gradient))) {
      ++good;
    } else {
      gradient = 0.0;
      ++estimate.dropped;
    }
  }
  estimate.coefficients.resize(directions);
  for (std::size_t k = 0; k < directions; ++k) {
    estimate.coefficients[k] = good > 0 ? static_cast<float>(gradients[k] / static_cast<double>(good)) : 0.0f;
  }
  estimate.projected_gradient = std::move(gradients);
  estimate.loss =
      loss_count > 0 ? loss_sum / static_cast<double>(loss_count) : std::numeric_limits<double>::quiet_NaN();
  return estimate;
}

constexpr double dropped = std::numeric_limits<double>::quiet_NaN();

class TwoSided final : public Estimator {
 public:
  explicit TwoSided(double epsilon) : epsilon_(epsilon) {}

  std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const override {
    std::vector<Probe> probes;
    for (std::uint32_t k = 0; k < seeds.size(); ++k) {
      for (const double sign : {1.0, -1.0}) {
        probes.push_back({.seed = seeds[k], .direction = k, .epsilon = static_cast<float>(sign * epsilon_)});
      }
    }
    return probes;
  }

  Estimate estimate(std::span<const ProbeLoss> losses) const override {
    std::vector<double> gradients;
    double loss_sum = 0.0;
    std::int64_t loss_count = 0;
    for (std::size_t i = 0; i + 1 < losses.size(); i += 2) {
      const ProbeLoss& plus = losses[i];
      const ProbeLoss& minus = losses[i + 1];
      if (!plus.good || !minus.good) {
        gradients.push_back(dropped);
        continue;
      }
      gradients.push_back((plus.mean() - minus.mean()) / (2.0 * epsilon_));
      loss_sum += 0.5 * (plus.mean() + minus.mean());
      ++loss_count;
    }
    return finish(std::move(gradients), loss_sum, loss_count);
  }

 private:
  double epsilon_;
};

class OneSided final : public Estimator {
 public:
  explicit OneSided(double epsilon) : epsilon_(epsilon) {}

  std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const override {
    std::vector<Probe> probes;
    // The unperturbed probe carries the first direction's seed: with epsilon 0 no noise is used.
    probes.push_back({.seed = seeds[0], .direction = 0, .epsilon = 0.0f});
    for (std::uint32_t k = 0; k < seeds.size(); ++k) {
      probes.push_back({.seed = seeds[k], .direction = k, .epsilon = static_cast<float>(epsilon_)});
    }
    return probes;
  }

  Estimate estimate(std::span<const ProbeLoss> losses) const override {
    const ProbeLoss& base = losses[0];
    std::vector<double> gradients;
    for (const ProbeLoss& plus : losses.subspan(1)) {
      gradients.push_back(base.good && plus.good ? (plus.mean() - base.mean()) / epsilon_ : dropped);
    }
    return finish(std::move(gradients), base.good ? base.mean() : 0.0, base.good ? 1 : 0);
  }

 private:
  double epsilon_;
};

}  // namespace

double Estimate::gradient_norm() const {
  double squares = 0.0;
  for (const double g : projected_gradient) squares += g * g;
  return std::sqrt(squares);
}

std::unique_ptr<Estimator> make_estimator(EstimatorKind kind, double epsilon) {
  switch (kind) {
    case EstimatorKind::two_sided:
      return std::make_unique<TwoSided>(epsilon);
    case EstimatorKind::one_sided:
      return std::make_unique<OneSided>(epsilon);
  }
  throw Error("the estimator {} is not built", static_cast<int>(kind));
}

}  // namespace mezzo
