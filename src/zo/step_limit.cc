#include "mezzo/zo/step_limit.h"

#include <cmath>

namespace mezzo {

std::optional<double> limited_rate(const Estimate& estimate, const Optimizer& optimizer, double share) {
  double squares = 0.0;
  for (const float c : estimate.coefficients) squares += static_cast<double>(c) * static_cast<double>(c);
  if (squares == 0.0 || !estimate.curvature) return {};
  const double rate =
      std::sqrt(share * std::abs(estimate.loss) /
                (*estimate.curvature * optimizer.walk_variance(estimate.mean_squares.value_or(squares))));
  if (!std::isfinite(rate)) return {};
  return rate;
}

}  // namespace mezzo
