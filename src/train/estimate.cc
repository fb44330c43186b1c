#include "mezzo/train/estimate.h"

#include <algorithm>
#include <vector>

#include "idle_backend.h"
#include "mezzo/core/error.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/probe_runner.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/trajectory.h"
#include "profiled_backend.h"

namespace mezzo {

namespace {

constexpr std::int64_t most_counted_steps = 100;

/// Bytes for everything, or none where no answer is needed.
std::optional<std::size_t> memory_of(const EstimateOptions& options, bool needed) {
  if (options.memory) return options.memory;
  if (options.backend.device != DeviceKind::cuda) return make_backend(options.backend)->memory_available();
  if (!needed) return std::nullopt;
  throw UsageError(
      "--memory-gib: missing, but required for cuda where zo.probes_per_forward is auto: the card's memory "
      "decides how many probes a forward has");
}

std::vector<Probe> probes_of(const Config& config, std::uint64_t step) {
  return make_estimator(config.zo.estimator, config.zo.epsilon)
      ->probes(direction_seeds(config.train.seed, step, config.zo.directions));
}

void plan_memory(const Config& config, const WorkInputs& inputs, const EstimateOptions& options,
                 const Decoder& decoder, const DevicePlan& device, RunEstimate& estimate) {
  const std::optional<std::int64_t> asked = config.zo.probes_per_forward;
  estimate.memory = memory_of(options, !asked);
  const std::size_t fixed = estimate.weight_bytes + estimate.trainable_bytes;
  if (!asked && estimate.memory.value() < fixed) {
    throw DeviceError("weights and trainables take {} MiB, but there are {} MiB of memory", fixed >> 20,
                      *estimate.memory >> 20);
  }
  const GroupLimits limits{.probes = estimate.probes,
                           .slices = estimate.slices,
                           .ranks = options.ranks,
                           .memory = asked ? 0 : *estimate.memory - fixed,
                           .paired = config.zo.estimator == EstimatorKind::two_sided};
  const auto plan = [&](std::optional<std::int64_t> group) {
    return plan_group(decoder, device, estimate.largest, config.zo.directions, limits, group);
  };
  estimate.plan = plan(asked);
  if (!asked) {
    const GroupPlan fair = plan(fair_share(limits));
    const bool fits = fair.activation_bytes + fair.scratch_bytes <= limits.memory;
    estimate.reason = fits ? GroupReason::fair_share : GroupReason::memory;
  }
  if (inputs.validation.empty()) return;
  const BatchShape shape = Evaluator(inputs.validation, inputs.task).largest();
  estimate.evaluation_activation_bytes = decoder.activation_bytes(shape, 1);
  estimate.evaluation_scratch_bytes = device.scratch_bytes(decoder.workload(shape, 1, 1));
}

/// Takes the first steps of every rank where nothing is done, and counts.
void count_operations(const Config& config, const WorkInputs& inputs, int ranks, Decoder& decoder,
                      ProfiledBackend& backend, RunEstimate& estimate) {
  decoder.randomize(0, 0.0f);
  ProbeRunner runner(backend, decoder);
  runner.reserve(estimate.largest, estimate.plan.group, estimate.plan.directions);
  backend.watch(ProfiledBackend::Watch::counts);
  estimate.counted_steps = std::min(config.train.max_steps, most_counted_steps);
  std::int64_t forwards = 0;
  WorkTally all;
  std::vector<double> rank_products(static_cast<std::size_t>(ranks), 0.0);
  for (std::uint64_t step = 0; step < static_cast<std::uint64_t>(estimate.counted_steps); ++step) {
    const std::vector<Probe> probes = probes_of(config, step);
    const std::vector<std::vector<const Example*>> slices = slices_of(config.train, *inputs.train, step);
    const StepItems items{.probes = probes,
                          .slices = slices,
                          .loss = inputs.task.loss(),
                          .noise = config.zo.noise,
                          .paired = config.zo.estimator == EstimatorKind::two_sided};
    const StepUnits units = items.units();
    const std::vector<WorkShare> shares = share_out(units, ranks);
    for (std::size_t rank = 0; rank < shares.size(); ++rank) {
      const std::vector<WorkItem> work = items_of(units, shares[rank], estimate.plan.group);
      backend.clear();
      evaluate_items(runner, items, work, [](std::int64_t, std::int64_t, SliceLoss) {});
      const WorkTally total = total_of(backend.tallies());
      forwards += static_cast<std::int64_t>(work.size());
      all.products += total.products;
      all.low_rank += total.low_rank;
      all.attention += total.attention;
      rank_products[rank] += total.products;
    }
  }
  const auto steps = static_cast<double>(estimate.counted_steps);
  estimate.forwards = static_cast<double>(forwards) / steps;
  estimate.step = {
      .products = all.products / steps, .low_rank = all.low_rank / steps, .attention = all.attention / steps};
  estimate.rank_products = std::ranges::max(rank_products) / steps;
}

}  // namespace

std::size_t RunEstimate::total_bytes() const {
  return weight_bytes + trainable_bytes + std::max(plan.activation_bytes, evaluation_activation_bytes) +
         std::max(plan.scratch_bytes, evaluation_scratch_bytes);
}

RunEstimate estimate_run(const Config& config, const Description& description, const WorkInputs& inputs,
                         const EstimateOptions& options) {
  const std::unique_ptr<DevicePlan> device = make_device_plan(options.backend);
  IdleBackend idle(*device);
  ProfiledBackend backend(idle, description);
  const Trainables trainables = list_trainables(inputs.trainables);
  Decoder decoder(backend, description, &inputs.adapter, &trainables);

  RunEstimate estimate{
      .layers = description.layers,
      .first_perturbed_layer = decoder.first_perturbed_layer(),
      .trainables = trainables.count(),
      .largest = largest_slice(config.train, *inputs.train, inputs.task.loss()),
      .slices = config.train.gradient_accumulation_steps * config.train.batch_slices,
      .probes = static_cast<std::int64_t>(probes_of(config, 0).size()),
      .plan = {},
      .reason = GroupReason::asked,
      .weight_bytes = decoder.weight_bytes(),
      .trainable_bytes = static_cast<std::size_t>(trainables.count()) * sizeof(float),
      .evaluation_activation_bytes = 0,
      .evaluation_scratch_bytes = 0,
      .memory = {},
      .counted_steps = 0,
      .forwards = 0.0,
      .step = {},
      .rank_products = 0.0,
  };
  plan_memory(config, inputs, options, decoder, *device, estimate);
  count_operations(config, inputs, options.ranks, decoder, backend, estimate);
  return estimate;
}

}  // namespace mezzo
