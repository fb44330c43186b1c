#pragma once
// From directions to probes, and from their losses back to one coefficient a direction. Host only, fp64.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "mezzo/backend/probes.h"
#include "mezzo/core/config.h"

namespace mezzo {

/// A probe's loss over the whole accumulated batch, slices added in order.
struct ProbeLoss {
  struct Slice {
    double sum = 0.0;
    double weight = 0.0;
  };

  double sum = 0.0;                ///< of the losses
  double weight = 0.0;             ///< examples or tokens
  bool good = true;                ///< false when any slice was not finite
  std::vector<Slice> slices = {};  ///< [S] what was added; empty: not known

  double mean() const { return sum / weight; }
};

struct Estimate {
  std::vector<float> coefficients;         ///< [N] c_k, rounded once to fp32; 0 for a dropped direction
  std::vector<double> projected_gradient;  ///< [N] g_k; 0 for a dropped one
  double loss = 0.0;  ///< at the unperturbed point, as far as the probes tell; NaN when all were dropped
  std::int64_t dropped = 0;  ///< directions with a loss that was not finite
  /// Nothing to normalize by: fewer than two good directions, or losses that are all the same; with running
  /// means, no losses that differ so far. Coefficients are 0.
  bool flat = false;
  /// How the loss bends along the directions: the root mean square of ((L(+eps z_k) + L(-eps z_k)) / 2 -
  /// L(0)) / eps^2 over the good ones, which is near half the trace of the Hessian; with running means, over
  /// those of the steps before too. None where L(0) was not asked for.
  std::optional<double> curvature = {};
  /// The mean of the same numbers, of this step alone: of a sum of rounding errors it is about 0.
  std::optional<double> bend = {};
  /// How far the n good directions' loss differences d_k stand above what another draw of the examples, and
  /// rounding, would make of them, by how they differ between the S slices of the batch: sqrt(sum d_k^2 / sum
  /// v_k). v_k estimates the variance of d_k as that of a ratio of sums (Cochran 1977, Sampling Techniques,
  /// chapter 6): with the slices' weights w_s and sums D_ks of loss differences, W = sum w_s,
  ///
  ///   v_k = S / (S - 1) sum over s of (D_ks - w_s d_k)^2 / W^2
  ///
  /// Differences that are noise alone come to about 1: with slices of equal weight and normal noise the
  /// square is F(n, n (S - 1)) distributed. Of a batch of B examples with the gradient g and the covariance C
  /// of single examples' gradients the square is near 1 + |g|^2 B / tr C, so that B / (square - 1) estimates
  /// the simple noise scale tr C / |g|^2 (McCandlish et al. 2018, arXiv:1812.06162). An error that all slices
  /// of a direction share counts as signal. None with fewer than two slices, without a good direction, and
  /// where the slices do not differ.
  std::optional<double> signal_to_noise = {};
  /// What the sum of c_k^2 comes to over the steps so far, unclipped; with running means only.
  std::optional<double> mean_squares = {};
  std::vector<double> state = {};  ///< [Estimator::state_size()] for the next step

  double gradient_norm() const;  ///< Euclidean norm of (g_k) over the good directions
};

/// Cuts each coefficient to a size of clip / n, n the good directions, so that no direction's projected
/// gradient counts for more than `clip`: c_k = min(max(c_k, -l), l), l = clip / n rounded to fp32. Of
/// `estimate` nothing else changes. `clip` > 0.
void clip_coefficients(Estimate& estimate, double clip);

/// How directions become probes and losses become projected gradients.
class Estimator {
 public:
  virtual ~Estimator() = default;
  /// Probes of a step, in the order in which slots are laid out.
  virtual std::vector<Probe> probes(std::span<const std::uint64_t> seeds) const = 0;
  /// How many numbers it keeps from step to step. They are finite and not negative, and 0 before the first
  /// step.
  virtual std::size_t state_size() const { return 0; }
  /// `losses` in the order of probes(), `state` the Estimate::state of the step before, empty before the
  /// first; pure, so that all ranks get the same bits.
  virtual Estimate estimate(std::span<const ProbeLoss> losses, std::span<const double> state) const = 0;
  Estimate estimate(std::span<const ProbeLoss> losses) const { return estimate(losses, {}); }
};

/// two_sided: g_k = (L(+eps z_k) - L(-eps z_k)) / 2 eps (SPSA: Spall 1992, eq. 2.2; MeZO: Malladi et al.
/// 2023, def. 1); one_sided: g_k = (L(+eps z_k) - L(0)) / eps, one shared probe more.
///
/// With n good directions, and sums in fp64 in the order of the probes:
///   none    c_k = g_k / n
///   zscore  c_k = (L(+eps z_k) - L(-eps z_k)) / (n s), s the sample standard deviation of their 2 n losses
///           (divisor 2 n - 1); of two_sided
///   std     c_k = (L(+eps z_k) - L(0)) / (n s), s the sample standard deviation of the n losses L(+eps z_k)
///           (divisor n - 1); of one_sided (FZOO: Dang et al. 2025, arXiv:2506.09034)
///   ranks   the same differences of centred ranks u = rank / (m - 1) - 1/2 of the m perturbed losses, the
///           lowest having rank 0 and equal ones their mean rank: c_k = (u(+) - u(-)) / n or u(+) / n
///           (Salimans et al. 2017, section 2.1)
///
/// With `beta` zscore and std take as s the root of the running mean of s^2 over the run's steps, this one
/// included (mezzo/zo/running_spread.h), to which one good direction is enough: its own s^2 is d^2 / 2
/// (zscore), or d^2 (std), around L(0). The curvature is a running mean then too. A step whose s^2 is not
/// finite is none, and changes no mean.
///
/// With `curvature` two_sided has an unperturbed probe behind the others, without whose loss all directions
/// are dropped, and estimates the curvature. Error for a combination that is none of these.
std::unique_ptr<Estimator> make_estimator(EstimatorKind kind, double epsilon,
                                          Normalization normalize = Normalization::none,
                                          bool curvature = false, std::optional<double> beta = {});

}  // namespace mezzo
