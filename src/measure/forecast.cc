#include "mezzo/measure/forecast.h"

#include <algorithm>
#include <vector>

#include "dry_run_backend.h"
#include "mezzo/core/error.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/probe_runner.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/slots.h"
#include "mezzo/zo/trajectory.h"
#include "profiled_backend.h"

namespace mezzo {

namespace {

constexpr std::int64_t most_counted_steps = 100;

/// Bytes for everything, or none where no answer is needed.
std::optional<std::size_t> memory_of(const ForecastOptions& options, bool needed) {
  if (options.memory) return options.memory;
  if (options.backend.device != DeviceKind::cuda) return make_backend(options.backend)->memory_available();
  if (!needed) return std::nullopt;
  throw UsageError(
      "--memory-gib: missing, but required for cuda where zo.probes_per_forward is auto: the card's memory "
      "decides how many probes a forward has");
}

std::vector<Probe> probes_of(const Config& config, std::uint64_t step) {
  return configure_estimator(config.zo)->probes(
      direction_seeds(config.train.seed, step, config.zo.directions));
}

/// Plans a rank's forwards for any number of ranks.
class Planner {
 public:
  /// All must outlive it. `free`: bytes for activations and scratch.
  Planner(const Config& config, const WorkInputs& inputs, const Decoder& decoder, const DevicePlan& device,
          const RunForecast& run, std::size_t free)
      : config_(config), inputs_(inputs), decoder_(decoder), device_(device), run_(run), free_(free) {}

  GroupPlan plan(int ranks) const { return plan(ranks, config_.zo.probes_per_forward); }
  GroupReason reason(int ranks) const {
    if (config_.zo.probes_per_forward) return GroupReason::asked;
    const GroupPlan fair = plan(ranks, limits(ranks).share);
    return fair.activation_bytes + fair.scratch_bytes <= free_ ? GroupReason::fair_share
                                                               : GroupReason::memory;
  }

 private:
  GroupLimits limits(int ranks) const {
    const bool paired = config_.zo.paired();
    return {.probes = run_.probes,
            .share =
                largest_share(config_.train, *inputs_.train, inputs_.task.loss(), run_.probes, paired, ranks),
            .memory = free_,
            .paired = paired};
  }
  GroupPlan plan(int ranks, std::optional<std::int64_t> group) const {
    return plan_group(decoder_, device_, run_.largest, limits(ranks), group);
  }

  const Config& config_;
  const WorkInputs& inputs_;
  const Decoder& decoder_;
  const DevicePlan& device_;
  const RunForecast& run_;
  std::size_t free_;
};

/// Bytes that weights and trainables leave.
std::size_t free_of(const RunForecast& run, bool needed) {
  if (!needed) return 0;
  const std::size_t fixed = run.weight_bytes + run.trainable_bytes;
  if (run.memory.value() < fixed) {
    throw DeviceError("weights and trainables take {} MiB, but there are {} MiB of memory", fixed >> 20,
                      *run.memory >> 20);
  }
  return *run.memory - fixed;
}

/// The first steps' work.
struct CountedStep {
  std::vector<Probe> probes;
  std::vector<std::vector<const Example*>> slices;
  StepItems items;
  StepUnits units;
};

std::vector<CountedStep> counted_steps(const Config& config, const WorkInputs& inputs) {
  const auto count = static_cast<std::size_t>(std::min(config.train.max_steps, most_counted_steps));
  std::vector<CountedStep> steps(count);
  for (std::size_t i = 0; i < count; ++i) {
    CountedStep& step = steps[i];
    step.probes = probes_of(config, i);
    step.slices = slices_of(config.train, *inputs.train, i);
    step.items = {.probes = step.probes,
                  .slices = step.slices,
                  .loss = inputs.task.loss(),
                  .noise = config.zo.noise,
                  .paired = config.zo.paired()};
    step.units = step.items.units();
  }
  return steps;
}

/// Takes steps of every rank where nothing is done, and counts.
void count_operations(const std::vector<CountedStep>& steps, int ranks, Decoder& decoder,
                      ProfiledBackend& backend, RunForecast& run) {
  decoder.randomize(0, 0.0f);
  ProbeRunner runner(backend, decoder);
  runner.reserve(run.largest, run.plan.group);
  backend.watch(ProfiledBackend::Watch::counts);
  std::int64_t forwards = 0;
  WorkTally all;
  std::vector<double> rank_products(static_cast<std::size_t>(ranks), 0.0);
  for (const CountedStep& step : steps) {
    const std::vector<WorkShare> shares = share_out(step.units, ranks);
    for (std::size_t rank = 0; rank < shares.size(); ++rank) {
      const std::vector<WorkItem> work = items_of(step.units, shares[rank], run.plan.group);
      backend.clear();
      evaluate_items(runner, step.items, work, [](std::int64_t, std::int64_t, SliceLoss) {});
      const WorkTally total = total_of(backend.tallies());
      forwards += static_cast<std::int64_t>(work.size());
      all.products += total.products;
      all.low_rank += total.low_rank;
      all.attention += total.attention;
      rank_products[rank] += total.products;
    }
  }
  const auto count = static_cast<double>(steps.size());
  run.counted_steps = static_cast<std::int64_t>(steps.size());
  run.forwards = static_cast<double>(forwards) / count;
  run.step = {
      .products = all.products / count, .low_rank = all.low_rank / count, .attention = all.attention / count};
  run.rank_products = std::ranges::max(rank_products) / count;
}

/// Shares out the counted steps and adds up what the parts of a step take.
StepForecast forecast_step(const Config& config, const std::vector<CountedStep>& steps,
                           const ForecastOptions& options, const GroupPlan& plan, int ranks) {
  const StepUnits& first = steps.front().units;
  StepForecast result{.ranks = ranks,
                      .working_ranks = std::min<std::int64_t>(ranks, first.count()),
                      .group = plan.group,
                      .words = SlotTable::words_of(first.probes, first.slices(), ranks)};
  const auto count = static_cast<double>(steps.size());
  double loads = 0.0;
  for (const CountedStep& step : steps) {
    std::int64_t largest = 0;
    double slowest = 0.0;
    for (const WorkShare& share : share_out(step.units, ranks)) {
      if (share.count == 0) continue;
      const std::int64_t load = load_of(step.units, share);
      loads += static_cast<double>(load);
      largest = std::max(largest, load);
      if (!options.measured) continue;
      const std::vector<WorkItem> items = items_of(step.units, share, plan.group);
      slowest = std::max(slowest, options.measured->work_seconds(step.units, items));
    }
    result.largest_load += static_cast<double>(largest) / count;
    result.work += slowest / count;
  }
  result.balance = loads / count / ranks / result.largest_load;
  result.exchange = options.exchange.seconds(ranks, result.words);
  if (options.measured) {
    const StepParts& parts = *options.measured;
    result.step = result.work + parts.update + parts.hash / static_cast<double>(config.train.hash_steps) +
                  parts.host + result.exchange;
  }
  return result;
}

}  // namespace

std::size_t RunForecast::total_bytes() const {
  return weight_bytes + trainable_bytes + std::max(plan.activation_bytes, evaluation_activation_bytes) +
         std::max(plan.scratch_bytes, evaluation_scratch_bytes);
}

RunForecast forecast_run(const Config& config, const Description& description, const WorkInputs& inputs,
                         const ForecastOptions& options) {
  const std::unique_ptr<DevicePlan> device = make_device_plan(options.backend);
  DryRunBackend dry_run(*device);
  ProfiledBackend backend(dry_run, description);
  const Trainables trainables = list_trainables(inputs.space->trainables());
  Decoder decoder(backend, description, inputs.space->perturbations(description, trainables));

  RunForecast run{
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
      .scaling = {},
  };
  const bool automatic = !config.zo.probes_per_forward;
  run.memory = memory_of(options, automatic);
  const Planner planner(config, inputs, decoder, *device, run, free_of(run, automatic));
  const int ranks = options.ranks.front();
  run.plan = planner.plan(ranks);
  run.reason = planner.reason(ranks);
  if (!inputs.validation.empty()) {
    const BatchShape shape = Evaluator(inputs.validation, inputs.task).largest();
    run.evaluation_activation_bytes = decoder.activation_bytes(shape, 1);
    run.evaluation_scratch_bytes = device->scratch_bytes(decoder.workload(shape, 1));
  }
  const std::vector<CountedStep> steps = counted_steps(config, inputs);
  count_operations(steps, ranks, decoder, backend, run);

  const StepForecast alone = forecast_step(config, steps, options, planner.plan(1), 1);
  for (const int each : options.ranks) {
    StepForecast& row =
        run.scaling.emplace_back(forecast_step(config, steps, options, planner.plan(each), each));
    if (!options.measured) continue;
    row.speed_up = alone.step / row.step;
    row.efficiency = row.speed_up / each;
  }
  return run;
}

}  // namespace mezzo
