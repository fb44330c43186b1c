#include "mezzo/train/speed_watch.h"

#include <algorithm>

namespace mezzo {

namespace {

/// The middle value, of two the lower: of two ranks the faster one is the yardstick.
double middle_of(std::vector<double> values) {
  const auto middle = values.begin() + (static_cast<std::ptrdiff_t>(values.size()) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::optional<SpeedWatch::SlowRank> SpeedWatch::see(std::span<const double> seconds,
                                                    std::span<const std::int64_t> loads) {
  if (noticed_) return std::nullopt;
  std::vector<double> working;  // seconds
  std::vector<double> rates;    // seconds for one unit of load
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) {
    if (loads[rank] == 0) continue;
    working.push_back(seconds[rank]);
    rates.push_back(seconds[rank] / static_cast<double>(loads[rank]));
  }
  if (working.size() < 2) return std::nullopt;
  const double seconds_then = middle_of(working);
  const double rate_then = middle_of(rates);
  factors_.resize(seconds.size());
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) {
    // Slow is who takes longer both in all and for a unit: a smaller share takes longer for a unit, and a
    // larger one in all.
    const double load = static_cast<double>(loads[rank]);
    const double factor =
        load == 0.0 ? 0.0 : std::min(seconds[rank] / seconds_then, seconds[rank] / load / rate_then);
    factors_[rank].push_back(factor);
  }
  if (factors_[0].size() < window) return std::nullopt;
  // The middle step decides: one long pause does not make a slow rank.
  SlowRank slowest;
  for (std::size_t rank = 0; rank < factors_.size(); ++rank) {
    const double factor = middle_of(std::move(factors_[rank]));
    if (factor > slowest.factor) slowest = {.rank = static_cast<int>(rank), .factor = factor};
  }
  factors_.clear();
  noticed_ = slowest.factor > clearly;
  return noticed_ ? std::optional(slowest) : std::nullopt;
}

}  // namespace mezzo
