#include "mezzo/train/curvature_watch.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mezzo {

bool CurvatureWatch::see(double bend) {
  sum_ += bend;
  squares_ += bend * bend;
  if (++steps_ < window) return false;
  const auto count = static_cast<double>(steps_);
  const double mean = sum_ / count;
  const double variance = std::max(0.0, squares_ / count - mean * mean) * count / (count - 1.0);
  steps_ = 0;
  sum_ = squares_ = 0.0;
  if (mean > significant * std::sqrt(variance / count)) return false;
  return !std::exchange(noticed_, true);
}

}  // namespace mezzo
