#include "mezzo/train/work.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <tuple>

namespace mezzo {

namespace {

/// Things in a row, by the load before each and behind the last: [n + 1], ascending from 0.
using Loads = std::vector<std::int64_t>;

/// Where a part that begins at `begin` ends at the latest if it is to hold at most `bound`.
std::int64_t furthest(const Loads& loads, std::int64_t begin, std::int64_t bound) {
  const std::int64_t most = loads[static_cast<std::size_t>(begin)] + bound;
  return std::upper_bound(loads.begin() + begin, loads.end(), most) - loads.begin() - 1;
}

/// The least bound that `parts` parts can keep.
std::int64_t least_bound(const Loads& loads, std::int64_t parts) {
  const auto last = static_cast<std::int64_t>(loads.size()) - 1;
  const auto holds = [&](std::int64_t bound) {
    std::int64_t end = 0;
    for (std::int64_t part = 0; part < parts && end < last; ++part) end = furthest(loads, end, bound);
    return end == last;
  };
  std::int64_t too_small = divided_up(loads.back(), parts) - 1;
  std::int64_t enough = loads.back();
  while (enough - too_small > 1) {
    const std::int64_t middle = too_small + (enough - too_small) / 2;
    (holds(middle) ? enough : too_small) = middle;
  }
  return enough;
}

/// The ends of `parts` parts, none empty, each of a load of at most `bound`, which that many parts can keep.
/// Of the places where a part may end it takes one of the least `cost`, of these the one nearest to an even
/// division.
std::vector<std::int64_t> cut(const Loads& loads, std::int64_t parts, std::int64_t bound,
                              const std::function<int(std::int64_t)>& cost) {
  const auto last = static_cast<std::int64_t>(loads.size()) - 1;
  const auto load = [&](std::int64_t end) { return loads[static_cast<std::size_t>(end)]; };
  // Where each part must have ended so that the parts behind it can hold the rest.
  std::vector<std::int64_t> earliest(static_cast<std::size_t>(parts), last);
  for (std::size_t part = earliest.size() - 1; part > 0; --part) {
    const std::int64_t rest = load(earliest[part]) - bound;
    earliest[part - 1] = std::lower_bound(loads.begin(), loads.end(), rest) - loads.begin();
  }
  std::vector<std::int64_t> ends;
  std::int64_t begin = 0;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t from = std::max(earliest[static_cast<std::size_t>(part)], begin + 1);
    const std::int64_t to = std::min(furthest(loads, begin, bound), last - (parts - 1 - part));
    const auto rank = [&](std::int64_t end) {
      return std::tuple(cost(end), std::abs(load(end) * parts - load(last) * (part + 1)));
    };
    std::int64_t best = from;
    for (std::int64_t end = from + 1; end <= to; ++end) {
      if (rank(end) < rank(best)) best = end;
    }
    ends.push_back(best);
    begin = best;
  }
  return ends;
}

}  // namespace

std::vector<WorkShare> share_out(const StepUnits& units, int ranks) {
  Loads loads{0};
  for (const std::int64_t tokens : units.slice_tokens) {
    for (std::int64_t probe = 0; probe < units.probes; ++probe) loads.push_back(loads.back() + tokens);
  }
  const std::int64_t working = std::min<std::int64_t>(ranks, units.count());
  const auto cost = [&](std::int64_t end) {
    const std::int64_t probe = end % units.probes;
    if (probe == 0) return 0;  // nobody else begins this slice
    return units.paired && probe % 2 == 0 ? 1 : 2;
  };
  std::vector<WorkShare> shares(static_cast<std::size_t>(ranks), {.first = units.count(), .count = 0});
  if (working == 0) return shares;
  const std::vector<std::int64_t> ends = cut(loads, working, least_bound(loads, working), cost);
  for (std::size_t rank = 0; rank < ends.size(); ++rank) {
    const std::int64_t first = rank == 0 ? 0 : ends[rank - 1];
    shares[rank] = {.first = first, .count = ends[rank] - first};
  }
  return shares;
}

std::vector<WorkItem> items_of(const StepUnits& units, WorkShare share, std::int64_t group) {
  std::vector<WorkItem> items;
  const std::int64_t end = share.first + share.count;
  for (std::int64_t first = share.first; first < end;) {
    const std::int64_t slice = first / units.probes;
    const std::int64_t count = std::min((slice + 1) * units.probes, end) - first;
    Loads loads;
    for (std::int64_t i = 0; i <= count; ++i) loads.push_back(i);
    const std::int64_t probe = first % units.probes;
    const auto cost = [&](std::int64_t place) { return units.paired && (probe + place) % 2 == 0 ? 0 : 1; };
    std::int64_t taken = 0;
    for (const std::int64_t place : cut(loads, divided_up(count, group), group, cost)) {
      items.push_back({.slice = slice, .first_probe = probe + taken, .probes = place - taken});
      taken = place;
    }
    first += count;
  }
  return items;
}

std::int64_t load_of(const StepUnits& units, WorkShare share) {
  std::int64_t load = 0;
  for (std::int64_t unit = share.first; unit < share.first + share.count; ++unit) {
    load += units.slice_tokens[static_cast<std::size_t>(unit / units.probes)];
  }
  return load;
}

}  // namespace mezzo
