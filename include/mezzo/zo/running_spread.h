#pragma once
// How far losses spread along directions, averaged over a run's steps: what steps of few directions are
// normalized by. One direction's own two losses would make each step a sign.
#include <cstddef>
#include <span>
#include <vector>

namespace mezzo {

/// Of the n good directions of one step, or a mean over steps.
struct Spread {
  double variance = 0.0;  ///< of the perturbed losses; s^2 of the estimator
  double squares = 0.0;   ///< sum of (d_k / n)^2, d_k the losses' differences
  double bend = 0.0;      ///< mean of ((L(+eps z_k) + L(-eps z_k)) / 2 - L(0))^2; 0 without L(0)
};

/// Exponential means m_t = beta m_(t-1) + (1 - beta) q_t from m_0 = 0, each over the weight that it holds:
/// Adam's bias correction (Kingma & Ba 2015, arXiv:1412.6980, section 3). The weight, 1 - beta^t, is the mean
/// of ones and kept beside them, since a step without a good direction counts for nothing. fp64, each
/// operation rounded.
class RunningSpread {
 public:
  static constexpr std::size_t state_size = 4;

  /// `state`: what state() was behind the step before; empty before the first one. Error for another size.
  /// `beta` at least 0 and below 1.
  RunningSpread(double beta, std::span<const double> state);

  void see(const Spread& of_step);
  /// Of the steps seen so far, of which there must be one.
  Spread mean() const;
  /// [state_size] weight, variance, squares, bend: finite and not negative.
  std::vector<double> state() const;

 private:
  double beta_;
  double weight_ = 0.0;
  Spread sums_;
};

}  // namespace mezzo
