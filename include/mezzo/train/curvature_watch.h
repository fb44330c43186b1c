#pragma once
#include <cstdint>

namespace mezzo {

/// Notices that the curvature, by which a step limit holds the learning rate, is the losses' rounding.
/// Rounding lifts the loss at 0 as often above the mean of a direction's two losses as it leaves it below,
/// and the root mean square of that grows as 1 / epsilon^2; where the loss bends, it bends upwards on
/// average.
class CurvatureWatch {
 public:
  static constexpr std::int64_t window = 50;  ///< steps
  static constexpr double significant = 2.0;  ///< standard errors that a mean above 0 has to be

  /// One step's Estimate::bend. True once, when a window has passed whose mean is not above 0 for sure.
  bool see(double bend);

 private:
  std::int64_t steps_ = 0;  ///< of the window so far, with what it sums up to
  double sum_ = 0.0;
  double squares_ = 0.0;
  bool noticed_ = false;
};

}  // namespace mezzo
