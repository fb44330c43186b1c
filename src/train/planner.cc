#include "mezzo/train/planner.h"

#include <algorithm>

#include "mezzo/core/error.h"

namespace mezzo {

std::int64_t fair_share(const GroupLimits& limits) {
  return std::clamp<std::int64_t>((limits.probes * limits.slices + limits.ranks - 1) / limits.ranks, 1,
                                  limits.probes);
}

std::int64_t choose_group(const GroupLimits& limits, const std::function<std::size_t(std::int64_t)>& bytes) {
  const std::int64_t fair = fair_share(limits);
  // bytes() grows with the group: the largest that fits, by bisection.
  if (bytes(1) > limits.memory) {
    throw DeviceError(
        "one probe's forward needs {} MiB, but {} MiB are free; a smaller train.batch_size, more "
        "train.batch_slices or a smaller data.max_length needs less",
        bytes(1) >> 20, limits.memory >> 20);
  }
  std::int64_t fits = 1;
  std::int64_t too_large = fair + 1;
  while (too_large - fits > 1) {
    const std::int64_t middle = fits + (too_large - fits) / 2;
    (bytes(middle) <= limits.memory ? fits : too_large) = middle;
  }
  // Equal groups: as many as `fits` makes necessary, no larger than they need be.
  const std::int64_t groups = (fair + fits - 1) / fits;
  std::int64_t group = (fair + groups - 1) / groups;
  if (limits.paired && group % 2 == 1 && group > 1) group += group + 1 <= fits ? 1 : -1;
  return group;
}

GroupPlan plan_group(const Decoder& decoder, const DevicePlan& device, const BatchShape& largest,
                     std::int64_t directions, const GroupLimits& limits, std::optional<std::int64_t> asked) {
  const auto plan_of = [&](std::int64_t group) {
    GroupPlan plan{.group = group, .directions = std::min(directions, limits.paired ? group / 2 + 1 : group)};
    plan.activation_bytes = decoder.activation_bytes(largest, group);
    plan.scratch_bytes = device.scratch_bytes(decoder.workload(largest, group, plan.directions));
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
  if (steps * step_examples > most_visits) {
    const std::int64_t slice = (config.batch_size + config.batch_slices - 1) / config.batch_slices;
    const auto sum_of_largest = [&](std::int64_t BatchShape::*size) {
      std::vector<std::int64_t> sizes;
      for (const BatchShape& shape : shapes) sizes.push_back(shape.*size);
      std::sort(sizes.begin(), sizes.end(), std::greater<>());
      std::int64_t sum = 0;
      for (std::int64_t i = 0; i < slice; ++i) sum += sizes[static_cast<std::size_t>(i) % sizes.size()];
      return sum;
    };
    largest = {.tokens = sum_of_largest(&BatchShape::tokens),
               .sequences = sum_of_largest(&BatchShape::sequences),
               .reads = sum_of_largest(&BatchShape::reads),
               .questions = sum_of_largest(&BatchShape::questions)};
    for (const BatchShape& shape : shapes) largest.longest = std::max(largest.longest, shape.longest);
    return largest;
  }
  for (std::uint64_t step = 0; step < steps; ++step) {
    for (const auto& slice : slices_of(config, stream, step)) {
      BatchShape sum;
      for (const Example* example : slice) {
        const BatchShape& shape = shapes[static_cast<std::size_t>(example - examples.data())];
        sum.tokens += shape.tokens;
        sum.sequences += shape.sequences;
        sum.reads += shape.reads;
        sum.questions += shape.questions;
        sum.longest = std::max(sum.longest, shape.longest);
      }
      largest = largest_of(largest, sum);
    }
  }
  return largest;
}

WorkShare share_of(std::int64_t items, int rank, int ranks) {
  const std::int64_t first = items * rank / ranks;
  return {.first = first, .count = items * (rank + 1) / ranks - first};
}

}  // namespace mezzo
