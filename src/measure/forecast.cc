#include "mezzo/measure/forecast.h"

#include <algorithm>
#include <vector>

#include "dry_run_backend.h"
#include "mezzo/core/error.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/loaded_model.h"
#include "mezzo/train/objective.h"
#include "mezzo/train/step.h"
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

/// Plans a rank's forwards for any number of ranks.
class Planner {
 public:
  /// All must outlive it. `free`: bytes for activations and scratch.
  Planner(const Config& config, const WorkInputs& inputs, const Decoder& decoder, const DevicePlan& device,
          const BatchShape& largest, std::size_t free)
      : config_(config),
        inputs_(inputs),
        decoder_(decoder),
        device_(device),
        largest_(largest),
        free_(free) {}

  GroupPlan plan(int ranks) const { return plan(ranks, config_.zo.probes_per_forward); }
  GroupReason reason(int ranks) const {
    if (config_.zo.probes_per_forward) return GroupReason::asked;
    const GroupPlan fair = plan(ranks, limits(ranks).share);
    return fair.activation_bytes + fair.scratch_bytes <= free_ ? GroupReason::fair_share
                                                               : GroupReason::memory;
  }

 private:
  GroupLimits limits(int ranks) const {
    return group_limits(config_, *inputs_.train, *inputs_.objective, ranks, free_);
  }
  GroupPlan plan(int ranks, std::optional<std::int64_t> group) const {
    return plan_group(decoder_, device_, largest_, limits(ranks), group);
  }

  const Config& config_;
  const WorkInputs& inputs_;
  const Decoder& decoder_;
  const DevicePlan& device_;
  const BatchShape largest_;
  std::size_t free_;
};

/// Bytes that weights and trainables leave.
std::size_t free_of(const RunForecast& run, bool needed) {
  if (!needed) return 0;
  const std::size_t fixed = run.weight_bytes + run.trainable_bytes + run.optimizer_bytes;
  if (run.memory.value() < fixed) {
    throw DeviceError(
        "weights, trainables and the optimizer's state take {} MiB, but there are {} MiB of memory",
        fixed >> 20, *run.memory >> 20);
  }
  return *run.memory - fixed;
}

/// Does the first steps' work of every rank where nothing is done, and counts. Returns the steps' units.
std::vector<StepUnits> count_operations(const Config& config, const WorkInputs& inputs, int ranks,
                                        LoadedModel& model, ProfiledBackend& backend, RunForecast& run) {
  model.decoder.randomize(0, 0.0f);
  model.runner.reserve(run.largest, run.plan.group);
  backend.watch(ProfiledBackend::Watch::counts);
  run.counted_steps = std::min(config.train.max_steps, most_counted_steps);
  const bool paired = config.zo.paired();
  const std::unique_ptr<Estimator> estimator = estimator_of(step_rule(config));
  const SlotSink nowhere = [](std::int64_t, std::int64_t, SlotValue) {};
  double forwards = 0.0;
  WorkTally all;
  std::vector<StepUnits> units;
  std::vector<double> rank_products(static_cast<std::size_t>(ranks), 0.0);
  for (std::uint64_t step = 0; step < static_cast<std::uint64_t>(run.counted_steps); ++step) {
    const std::vector<Probe> probes =
        estimator->probes(direction_seeds(step_rule(config).noise, step, config.zo.directions));
    const Slices slices = slices_of(config.train, *inputs.train, step);
    const StepWork work{.step = step, .probes = probes, .slices = slices, .noise = config.zo.noise};
    units.push_back(units_of(*inputs.objective, slices, run.probes, paired));
    const std::vector<WorkShare> shares = share_out(units.back(), ranks);
    for (std::size_t rank = 0; rank < shares.size(); ++rank) {
      const std::vector<WorkItem> items = items_of(units.back(), shares[rank], run.plan.group);
      backend.clear();
      inputs.objective->evaluate(model.runner, work, items, nowhere);
      const WorkTally total = total_of(backend.tallies());
      forwards += static_cast<double>(items.size());
      all.products += total.products;
      all.low_rank += total.low_rank;
      all.attention += total.attention;
      rank_products[rank] += total.products;
    }
  }
  const auto count = static_cast<double>(run.counted_steps);
  run.forwards = forwards / count;
  run.step = {
      .products = all.products / count, .low_rank = all.low_rank / count, .attention = all.attention / count};
  run.rank_products = std::ranges::max(rank_products) / count;
  return units;
}

/// Shares out the counted steps and adds up what the parts of a step take.
StepForecast forecast_step(const Config& config, const std::vector<StepUnits>& steps,
                           const ForecastOptions& options, const GroupPlan& plan, int ranks) {
  const StepUnits& first = steps.front();
  StepForecast result{.ranks = ranks,
                      .working_ranks = std::min<std::int64_t>(ranks, first.count()),
                      .group = plan.group,
                      .words = SlotTable::words_of(first.probes, first.slices(), ranks)};
  const auto count = static_cast<double>(steps.size());
  double loads = 0.0;
  for (const StepUnits& units : steps) {
    std::int64_t largest = 0;
    double slowest = 0.0;
    for (const WorkShare& share : share_out(units, ranks)) {
      if (share.count == 0) continue;
      const std::int64_t load = load_of(units, share);
      loads += static_cast<double>(load);
      largest = std::max(largest, load);
      if (!options.measured) continue;
      const std::vector<WorkItem> items = items_of(units, share, plan.group);
      slowest = std::max(slowest, options.measured->work_seconds(units, items));
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
  return weight_bytes + trainable_bytes + optimizer_bytes +
         std::max(plan.activation_bytes, evaluation_activation_bytes) +
         std::max(plan.scratch_bytes, evaluation_scratch_bytes);
}

RunForecast forecast_run(const Config& config, const Description& description, const WorkInputs& inputs,
                         const ForecastOptions& options) {
  if (inputs.generation)
    throw UsageError("data.task.type: generation is a task that estimate does not foretell");
  const std::unique_ptr<DevicePlan> device = make_device_plan(options.backend);
  DryRunBackend dry_run(*device);
  ProfiledBackend backend(dry_run, description);
  const std::shared_ptr<const Optimizer> optimizer = configure_optimizer(config.optimizer);
  LoadedModel model(backend, description, *inputs.space,
                    TrainedState{list_trainables(inputs.space->trainables(), optimizer->master()), {}});
  const Decoder& decoder = model.decoder;

  RunForecast run{
      .layers = description.layers,
      .first_perturbed_layer = decoder.first_perturbed_layer(),
      .parameters = count_parameters(decoder_spec(description)),
      .trainables = model.state.trainables.count(),
      .largest = largest_slice(config.train, *inputs.train, *inputs.objective),
      .slices = slices_of_step(config.train),
      .probes = probes_of_step(config.zo),
      .plan = {},
      .reason = GroupReason::asked,
      .weight_bytes = decoder.weight_bytes(),
      .trainable_bytes =
          static_cast<std::size_t>(model.state.trainables.count()) * size_of(optimizer->master()),
      .optimizer_bytes =
          static_cast<std::size_t>(element_count(optimizer->state(inputs.space->trainables()))) *
          sizeof(float),
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
  const Planner planner(config, inputs, decoder, *device, run.largest, free_of(run, automatic));
  const int ranks = options.ranks.front();
  run.plan = planner.plan(ranks);
  run.reason = planner.reason(ranks);
  if (!inputs.validation.empty()) {
    const BatchShape shape = make_evaluator(inputs.validation, inputs.task, nullptr)->largest();
    run.evaluation_activation_bytes = decoder.activation_bytes(shape, 1);
    run.evaluation_scratch_bytes = device->scratch_bytes(decoder.workload(shape, 1));
  }
  const std::vector<StepUnits> steps = count_operations(config, inputs, ranks, model, backend, run);

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
