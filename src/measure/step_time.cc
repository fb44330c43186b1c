#include "mezzo/measure/step_time.h"

#include <algorithm>

namespace mezzo {

double StepParts::begin_seconds(std::int64_t slice_tokens) const {
  return begin * static_cast<double>(slice_tokens) / static_cast<double>(tokens);
}

double StepParts::forward_seconds(std::int64_t probes, std::int64_t slice_tokens) const {
  // In probes of the measured slice, by the number of rows.
  const double size = static_cast<double>(probes * slice_tokens) / static_cast<double>(tokens);
  const Forward& smallest = forwards.front();
  const double in_proportion = smallest.seconds * size / static_cast<double>(smallest.probes);
  if (forwards.size() == 1) return in_proportion;
  std::size_t upper = 1;
  while (upper + 1 < forwards.size() && size > static_cast<double>(forwards[upper].probes)) ++upper;
  const Forward& a = forwards[upper - 1];
  const Forward& b = forwards[upper];
  const double slope = (b.seconds - a.seconds) / static_cast<double>(b.probes - a.probes);
  // A forward smaller than the smallest does not cost less than its share of that one.
  return std::max(a.seconds + slope * (size - static_cast<double>(a.probes)),
                  size < static_cast<double>(smallest.probes) ? in_proportion : 0.0);
}

double StepParts::work_seconds(const StepUnits& units, std::span<const WorkItem> items) const {
  double seconds = 0.0;
  std::int64_t begun_slice = -1;
  for (const WorkItem& item : items) {
    const std::int64_t slice_tokens = units.slice_tokens[static_cast<std::size_t>(item.slice)];
    if (item.slice != begun_slice) seconds += begin_seconds(slice_tokens);
    begun_slice = item.slice;
    seconds += forward_seconds(item.probes, slice_tokens);
  }
  return seconds;
}

double ExchangeTime::seconds(int ranks, std::int64_t words) const {
  if (ranks == 1) return 0.0;
  return fixed + (ranks - 1) * (per_rank + per_rank_word * static_cast<double>(words));
}

}  // namespace mezzo
