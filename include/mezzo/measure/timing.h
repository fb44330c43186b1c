#pragma once
// How long work takes.
#include <functional>
#include <vector>

namespace mezzo {

/// Seconds of one call.
double seconds_of(const std::function<void()>& work);
/// Median over `repetitions` calls of `work`.
double median_seconds(int repetitions, const std::function<void()>& work);
double median_of(std::vector<double> values);

}  // namespace mezzo
