#include "mezzo/train/planner.h"

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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

std::int64_t choose_group(const GroupLimits& limits, const std::function<std::size_t(std::int64_t)>& bytes) {
  // bytes() grows with the group: the largest that fits, by bisection.
  if (bytes(1) > limits.memory) {
    throw DeviceError(
        "one probe's forward needs {} MiB, but {} MiB are free; a smaller train.batch_size, more "
        "train.batch_slices or a smaller data.max_length needs less",
        bytes(1) >> 20, limits.memory >> 20);
  }
  std::int64_t fits = 1;
  std::int64_t too_large = limits.share + 1;
  while (too_large - fits > 1) {
    const std::int64_t middle = fits + (too_large - fits) / 2;
    (bytes(middle) <= limits.memory ? fits : too_large) = middle;
  }
  // Equal groups: as many as `fits` makes necessary, no larger than they need be.
  const std::int64_t groups = divided_up(limits.share, fits);
  const std::int64_t group = divided_up(limits.share, groups);
  return limits.paired && group % 2 == 1 && group < fits ? group + 1 : group;
}

GroupPlan plan_group(const Decoder& decoder, const DevicePlan& device, const BatchShape& largest,
                     const GroupLimits& limits, std::optional<std::int64_t> asked) {
  const auto plan_of = [&](std::int64_t group) {
    GroupPlan plan{.group = group};
    plan.activation_bytes = decoder.activation_bytes(largest, group);
    plan.scratch_bytes = device.scratch_bytes(decoder.workload(largest, group));
    return plan;
  };
  if (asked) return plan_of(std::min(*asked, limits.probes));
  return plan_of(choose_group(limits, [&](std::int64_t group) {
    const GroupPlan plan = plan_of(group);
    return plan.activation_bytes + plan.scratch_bytes;
  }));
}

std::vector<std::vector<const Example*>> slices_of(const TrainConfig& config, const ExampleStream& stream,
                                                   std::uint64_t step) {
  const std::int64_t step_examples = config.gradient_accumulation_steps * config.batch_size;
  const std::vector<const Example*> all =
      stream.at(step * static_cast<std::uint64_t>(step_examples), step_examples);
  std::vector<std::vector<const Example*>> slices;
  for (std::int64_t batch = 0; batch < config.gradient_accumulation_steps; ++batch) {
    const auto first = all.begin() + batch * config.batch_size;
    for (std::int64_t i = 0; i < config.batch_slices; ++i) {
      slices.emplace_back(first + config.batch_size * i / config.batch_slices,
                          first + config.batch_size * (i + 1) / config.batch_slices);
    }
  }
  return slices;
}

BatchShape largest_slice(const TrainConfig& config, const ExampleStream& stream, TaskLoss loss) {
  constexpr std::uint64_t most_visits = 4'000'000;
  std::vector<BatchShape> shapes;  // sizes of a slice are sums over its examples
  const std::span<const Example> examples = stream.examples();
  for (const Example& example : examples) {
    const Example* one = &example;
    shapes.push_back(shape_of(pack({&one, 1}, loss, loss == TaskLoss::options).packed));
  }
  const auto steps = static_cast<std::uint64_t>(config.max_steps);
  const auto step_examples =
      static_cast<std::uint64_t>(config.gradient_accumulation_steps * config.batch_size);
  BatchShape largest;
  if (steps > most_visits / step_examples) {
    const std::int64_t slice = (config.batch_size + config.batch_slices - 1) / config.batch_slices;
    // Of each epoch that a slice reaches into it may hold an example once.
    const auto count = std::ssize(examples);
    const std::int64_t epochs = 1 + (slice - 1 + count - 1) / count;
    const auto sum_of_largest = [&](std::int64_t BatchShape::*size) {
      std::vector<std::int64_t> sizes;
      for (const BatchShape& shape : shapes) sizes.push_back(shape.*size);
      std::sort(sizes.begin(), sizes.end(), std::greater<>());
      std::int64_t sum = 0;
      for (std::int64_t i = 0; i < slice; ++i) sum += sizes[static_cast<std::size_t>(i / epochs)];
      return sum;
    };
    for (const BatchShape& shape : shapes) largest = largest_of(largest, shape);
    return {.tokens = sum_of_largest(&BatchShape::tokens),
            .sequences = sum_of_largest(&BatchShape::sequences),
            .loss_rows = sum_of_largest(&BatchShape::loss_rows),
            .targets = sum_of_largest(&BatchShape::targets),
            .longest = largest.longest,
            .mixed = largest.mixed};
  }
  for (std::uint64_t step = 0; step < steps; ++step) {
    for (const auto& slice : slices_of(config, stream, step)) {
      BatchShape sum;
      for (const Example* example : slice) {
        const BatchShape& shape = shapes[static_cast<std::size_t>(example - examples.data())];
        sum.tokens += shape.tokens;
        sum.sequences += shape.sequences;
        sum.loss_rows += shape.loss_rows;
        sum.targets += shape.targets;
        sum.longest = std::max(sum.longest, shape.longest);
      }
      largest = largest_of(largest, sum);
    }
  }
  return largest;
}

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

StepUnits units_of(std::span<const std::vector<const Example*>> slices, TaskLoss loss, std::int64_t probes,
                   bool paired) {
  StepUnits units{.probes = probes, .slice_tokens = {}, .paired = paired};
  for (const std::vector<const Example*>& slice : slices) {
    std::int64_t tokens = 0;
    for (const Example* example : slice) tokens += packed_tokens(*example, loss == TaskLoss::options);
    units.slice_tokens.push_back(tokens);
  }
  return units;
}

std::int64_t largest_share(const TrainConfig& config, const ExampleStream& stream, TaskLoss loss,
                           std::int64_t probes, bool paired, int ranks) {
  constexpr std::int64_t most_steps = 1000;
  const bool one_slice =
      config.gradient_accumulation_steps * config.batch_slices == 1;  // all steps are alike
  const std::int64_t steps = one_slice ? 1 : std::min(config.max_steps, most_steps);
  std::int64_t largest = 0;
  for (std::int64_t step = 0; step < steps; ++step) {
    const StepUnits units =
        units_of(slices_of(config, stream, static_cast<std::uint64_t>(step)), loss, probes, paired);
    for (const WorkShare& share : share_out(units, ranks)) {
      for (const WorkItem& item : items_of(units, share, probes)) largest = std::max(largest, item.probes);
    }
  }
  return largest;
}

std::int64_t load_of(const StepUnits& units, WorkShare share) {
  std::int64_t load = 0;
  for (std::int64_t unit = share.first; unit < share.first + share.count; ++unit) {
    load += units.slice_tokens[static_cast<std::size_t>(unit / units.probes)];
  }
  return load;
}

}  // namespace mezzo
