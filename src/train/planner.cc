#include "mezzo/train/planner.h"

#include <algorithm>

#include "mezzo/core/error.h"

namespace mezzo {

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

std::int64_t probes_of_step(const ZoConfig& config) {
  const bool has_base = !config.paired() || config.step_limit;
  return (config.paired() ? 2 : 1) * config.directions + (has_base ? 1 : 0);
}

std::int64_t slices_of_step(const TrainConfig& config) {
  return config.gradient_accumulation_steps * config.batch_slices;
}

GroupLimits group_limits(const Config& config, const ExampleStream& stream, const Objective& objective,
                         int ranks, std::size_t memory) {
  const std::int64_t probes = probes_of_step(config.zo);
  const bool paired = config.zo.paired();
  return {.probes = probes,
          .share = largest_share(config.train, stream, objective, probes, paired, ranks),
          .memory = memory,
          .paired = paired};
}

Slices slices_of(const TrainConfig& config, const ExampleStream& stream, std::uint64_t step) {
  const std::int64_t step_examples = config.gradient_accumulation_steps * config.batch_size;
  const std::vector<const Example*> all =
      stream.at(step * static_cast<std::uint64_t>(step_examples), step_examples);
  Slices slices;
  for (std::int64_t batch = 0; batch < config.gradient_accumulation_steps; ++batch) {
    const auto first = all.begin() + batch * config.batch_size;
    for (std::int64_t i = 0; i < config.batch_slices; ++i) {
      slices.emplace_back(first + config.batch_size * i / config.batch_slices,
                          first + config.batch_size * (i + 1) / config.batch_slices);
    }
  }
  return slices;
}

BatchShape largest_slice(const TrainConfig& config, const ExampleStream& stream, const Objective& objective) {
  constexpr std::uint64_t most_visits = 4'000'000;
  std::vector<BatchShape> shapes;  // sizes of a slice are sums over its examples
  const std::span<const Example> examples = stream.examples();
  for (const Example& example : examples) shapes.push_back(objective.shape_of(example));
  const auto steps = static_cast<std::uint64_t>(config.max_steps);
  const auto step_examples =
      static_cast<std::uint64_t>(config.gradient_accumulation_steps * config.batch_size);
  BatchShape largest;
  if (steps > most_visits / step_examples) {
    const std::int64_t slice = divided_up(config.batch_size, config.batch_slices);
    // Of each epoch that a slice reaches into it may hold an example once.
    const std::int64_t epochs = 1 + divided_up(slice - 1, stream.shortest_epoch());
    const auto sum_of_largest = [&](auto size_of) {
      std::vector<std::int64_t> sizes;
      for (const BatchShape& shape : shapes) sizes.push_back(size_of(shape));
      std::sort(sizes.begin(), sizes.end(), std::greater<>());
      std::int64_t sum = 0;
      for (std::int64_t i = 0; i < slice; ++i) sum += sizes[static_cast<std::size_t>(i / epochs)];
      return sum;
    };
    for (const BatchShape& shape : shapes) largest = largest_of(largest, shape);
    const auto sum_of = [&](std::int64_t BatchShape::*size) {
      return sum_of_largest([size](const BatchShape& shape) { return shape.*size; });
    };
    const auto sum_of_cache = [&](std::int64_t CacheShape::*size) {
      return sum_of_largest([size](const BatchShape& shape) { return shape.cache.*size; });
    };
    return objective.room_for({.tokens = sum_of(&BatchShape::tokens),
                               .sequences = sum_of(&BatchShape::sequences),
                               .loss_rows = sum_of(&BatchShape::loss_rows),
                               .targets = sum_of(&BatchShape::targets),
                               .longest = largest.longest,
                               .mixed = largest.mixed,
                               .cache = {.prompt_rows = sum_of_cache(&CacheShape::prompt_rows),
                                         .slots = sum_of_cache(&CacheShape::slots),
                                         .new_tokens = largest.cache.new_tokens}});
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
        sum.mixed = sum.mixed || shape.mixed;
        sum.cache = {.prompt_rows = sum.cache.prompt_rows + shape.cache.prompt_rows,
                     .slots = sum.cache.slots + shape.cache.slots,
                     .new_tokens = std::max(sum.cache.new_tokens, shape.cache.new_tokens)};
      }
      largest = largest_of(largest, sum);
    }
  }
  return objective.room_for(largest);
}

std::int64_t largest_share(const TrainConfig& config, const ExampleStream& stream, const Objective& objective,
                           std::int64_t probes, bool paired, int ranks) {
  constexpr std::int64_t most_steps = 1000;
  const bool one_slice = slices_of_step(config) == 1;  // all steps are alike
  const std::int64_t steps = one_slice ? 1 : std::min(config.max_steps, most_steps);
  std::int64_t largest = 0;
  for (std::int64_t step = 0; step < steps; ++step) {
    const Slices slices = slices_of(config, stream, static_cast<std::uint64_t>(step));
    const StepUnits units = units_of(objective, slices, probes, paired);
    for (const WorkShare& share : share_out(units, ranks)) {
      for (const WorkItem& item : items_of(units, share, probes)) largest = std::max(largest, item.probes);
    }
  }
  return largest;
}

}  // namespace mezzo
