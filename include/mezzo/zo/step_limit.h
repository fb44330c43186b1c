#pragma once
// A limit to the length of steps that needs no tuning. As far as steps consist of noise, theta walks at
// random, and the curvature raises the loss by half the Hessian's trace times the variance that an element
// gains. The limit holds that, over a whole run, at a share of the loss, whatever learning rate is asked for;
// docs/learning.md has the measurements.
#include <optional>

#include "mezzo/zo/estimator.h"
#include "mezzo/zo/optimizer.h"

namespace mezzo {

/// The learning rate at which steps with these coefficients, were they noise, would raise the loss by `share`
/// of it each: sqrt(share loss / (curvature v)), v the optimizer's walk_variance() of the sum of squares of
/// the coefficients, or of what that comes to over the steps so far where the estimate tells it. In fp64, in
/// the order of the directions. None where the loss does not bend, or the step is none.
std::optional<double> limited_rate(const Estimate& estimate, const Optimizer& optimizer, double share);

}  // namespace mezzo
