#include "mezzo/measure/profile.h"

#include <algorithm>
#include <utility>

#include "mezzo/backend/gemm_bound.h"
#include "mezzo/core/error.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/measure/timing.h"
#include "mezzo/train/planner.h"
#include "mezzo/train/step.h"
#include "profiled_backend.h"

namespace mezzo {

namespace {

/// Steps of a config on a profiled backend, as the trainer takes them on one rank.
class ProfiledRun {
 public:
  ProfiledRun(const Config& config, const Inputs& inputs, const BackendOptions& options);

  /// Seconds of a step.
  struct StepSeconds {
    double total = 0.0;
    double work = 0.0;  ///< the forwards
    double hash = 0.0;
    double update = 0.0;
  };
  StepSeconds take(std::uint64_t number);  ///< waits
  /// `begin` and `forwards` alone, on the first step's first slice.
  StepParts measure_forwards(int repetitions);

  const Config& config;
  const Inputs& inputs;
  const Objective& objective;
  const std::unique_ptr<Exchange> exchange = make_self_exchange();
  const std::unique_ptr<Backend> device;
  ProfiledBackend backend;
  const StepRule rule;
  LoadedModel model;
  GroupPlan plan;
  std::optional<Step> step;
};

ProfiledRun::ProfiledRun(const Config& of, const Inputs& with, const BackendOptions& options)
    : config(of),
      inputs(with),
      objective(*inputs.objective),
      device(make_backend(options)),
      backend(*device, inputs.files.description),
      rule(step_rule(config)),
      model(
          backend, inputs.files.description, *inputs.space,
          begin_state(backend, inputs.space->trainables(), inputs.initial_values(config), *rule.optimizer)) {
  model.decoder.load(inputs.files, {});
  const BatchShape largest = largest_slice(config.train, *inputs.train, objective);
  plan = plan_group(model.decoder, backend, largest,
                    group_limits(config, *inputs.train, objective, 1, backend.memory_available()),
                    config.zo.probes_per_forward);
  model.runner.reserve(largest, plan.group);
  step.emplace(rule, StepShape{.slices = slices_of_step(config.train), .group = plan.group}, objective, model,
               *exchange);
}

ProfiledRun::StepSeconds ProfiledRun::take(std::uint64_t number) {
  const bool hash = number % static_cast<std::uint64_t>(config.train.hash_steps) == 0;
  StepSeconds seconds;
  seconds.total = seconds_of([&] {
    const StepResult result = step->take({.step = number,
                                          .slices = slices_of(config.train, *inputs.train, number),
                                          .hash = hash,
                                          .patience = starting_patience});
    seconds.work = result.work_seconds[0];
    seconds.hash = result.hash_seconds;
    seconds.update = result.update_seconds + seconds_of([&] { backend.synchronize(); });
  });
  return seconds;
}

StepParts ProfiledRun::measure_forwards(int repetitions) {
  constexpr int warm_up = 3;  // the third of its kind is when a backend may begin to repeat it
  const auto measure = [&](const std::function<void()>& work) {
    for (int i = 0; i < warm_up; ++i) work();
    return median_seconds(repetitions, work);
  };
  const std::vector<Probe> of_step = step->probes(0);
  const std::vector<const Example*> slice = slices_of(config.train, *inputs.train, 0)[0];
  const TaskLoss loss = inputs.task.loss();
  LossBatch batch;
  StepParts parts;
  parts.begin = measure([&] {
    batch = pack(slice, loss, reads_all_options(loss));
    model.runner.begin(batch.packed);
    backend.synchronize();
  });
  parts.tokens = batch.packed.token_count();
  const std::size_t targets = batch.packed.target_tokens.size();
  for (std::int64_t count = 1;; count = std::min(2 * count, plan.group)) {
    const auto group = std::span(of_step).first(static_cast<std::size_t>(count));
    const double seconds = measure([&] {
      const std::span<const float> scores = model.runner.evaluate(group, config.zo.noise);
      for (std::size_t p = 0; p < group.size(); ++p)
        static_cast<void>(loss_of(batch, scores.subspan(p * targets, targets)));
    });
    parts.forwards.push_back({.probes = count, .seconds = seconds});
    if (count == plan.group) return parts;
  }
}

/// The rate of one large product, in operations a second.
double peak_rate(const BackendOptions& options, std::int64_t size) {
  const PlainProduct product{.rows = size, .out = size, .in = size};
  const std::unique_ptr<GemmBound> gemm_bound = make_gemm_bound(options, {&product, 1});
  gemm_bound->run();
  return product.operations() / median_seconds(5, [&] { gemm_bound->run(); });
}

/// The rate of a copy, in bytes read and written a second.
double copy_rate(const BackendOptions& options, std::int64_t rows) {
  constexpr std::int64_t cols = 4096;
  const std::unique_ptr<Backend> backend = make_backend(options);
  PackedBatch all;  // of which every row is read: its list of rows is the one to gather
  for (std::int32_t row = 0; row < rows; ++row) {
    all.tokens.push_back(0);
    all.positions.push_back(row);
    all.loss_rows.push_back(row);
  }
  all.offsets = {0, static_cast<std::int32_t>(rows)};
  DeviceBatch batch;
  backend->upload(all, batch);
  const Probe unperturbed;
  ProbeTable table;
  backend->upload({&unperturbed, 1}, NoiseKind::gaussian, table);
  const std::size_t bytes = static_cast<std::size_t>(rows * cols) * size_of(backend->activation_dtype());
  const Buffer from = backend->allocate(bytes);
  const Buffer to = backend->allocate(bytes);
  const auto matrix = [&](const Buffer& buffer) {
    return dense(buffer.data(), backend->activation_dtype(), rows, cols);
  };
  backend->fill_normal(matrix(from), 0, 1.0f);
  const auto copy = [&] {
    backend->gather(table, matrix(from), batch.loss_rows, matrix(to));
    backend->synchronize();
  };
  copy();
  return 2.0 * static_cast<double>(bytes) / median_seconds(5, copy);
}

}  // namespace

std::string_view name_of(Work work) {
  switch (work) {
    case Work::qkv:
      return "qkv";
    case Work::attention_output:
      return "attention_output";
    case Work::mlp_input:
      return "mlp_input";
    case Work::mlp_output:
      return "mlp_output";
    case Work::router:
      return "router";
    case Work::expert_input:
      return "expert_input";
    case Work::expert_output:
      return "expert_output";
    case Work::embedding_projection:
      return "embedding_projection";
    case Work::head:
      return "head";
    case Work::attention:
      return "attention";
    case Work::norm:
      return "norm";
    case Work::rows:
      return "embed_gather";
    case Work::perturb:
      return "perturb";
    case Work::update:
      return "update";
    case Work::hash:
      return "hash";
    case Work::transfer:
      return "upload_read";
  }
  return "";
}

WorkTally total_of(const WorkTallies& tallies) {
  WorkTally total;
  for (const WorkTally& tally : tallies) {
    total.calls += tally.calls;
    total.seconds += tally.seconds;
    total.products += tally.products;
    total.low_rank += tally.low_rank;
    total.attention += tally.attention;
    total.bytes += tally.bytes;
  }
  return total;
}

ProfileResult profile(const Config& config, const Inputs& inputs, const BackendOptions& backend,
                      std::int64_t steps) {
  if (inputs.generation)
    throw UsageError("data.task.type: generation is a task that profile does not measure");
  ProfileResult result;
  {
    ProfiledRun run(config, inputs, backend);
    run.take(0);  // warms up
    std::vector<double> seconds, updates, hosts;
    double hash = 0.0;
    double profiled = 0.0;
    double tokens = 0.0;
    for (std::uint64_t step = 0; step < static_cast<std::uint64_t>(steps); ++step) {
      run.backend.watch(ProfiledBackend::Watch::nothing);
      const ProfiledRun::StepSeconds plain = run.take(step);
      seconds.push_back(plain.total);
      updates.push_back(plain.update);
      hosts.push_back(plain.total - plain.work - plain.hash - plain.update);
      hash = std::max(hash, plain.hash);
      run.backend.watch(ProfiledBackend::Watch::time);
      profiled += run.take(step).total;
      for (const auto& slice : slices_of(config.train, *inputs.train, step)) {
        for (const Example* example : slice) tokens += static_cast<double>(run.objective.tokens_of(*example));
      }
    }
    const auto count = static_cast<double>(steps);
    result = {.device = run.backend.device(),
              .steps = steps,
              .probes = run.step->probe_count(),
              .group = run.plan.group,
              .tokens = tokens / count,
              .weight_bytes = run.model.decoder.weight_bytes(),
              .activation_bytes = run.plan.activation_bytes,
              .arena_high_water = run.model.decoder.arena_high_water(),
              .scratch_bytes = run.plan.scratch_bytes,
              .step = median_of(std::move(seconds)),
              .profiled_step = profiled / count,
              .rows = {}};
    const WorkTallies& tallies = run.backend.tallies();
    for (std::size_t i = 0; i < tallies.size(); ++i) {
      const WorkTally& tally = tallies[i];
      if (tally.calls == 0) continue;
      result.rows.push_back({.work = static_cast<Work>(i),
                             .calls = static_cast<double>(tally.calls) / count,
                             .step = {.seconds = tally.seconds / count,
                                      .products = tally.products / count,
                                      .low_rank = tally.low_rank / count,
                                      .attention = tally.attention / count,
                                      .bytes = tally.bytes / count}});
    }
    result.host = result.profiled_step - total_of(tallies).seconds / count;
    run.backend.watch(ProfiledBackend::Watch::nothing);
    result.parts = run.measure_forwards(static_cast<int>(steps));
    result.parts.update = median_of(std::move(updates));
    result.parts.hash = hash;
    result.parts.host = median_of(std::move(hosts));
  }
  // The run's memory is free again: of a card it may have taken all.
  result.peak_size = backend.device == DeviceKind::cuda ? 8192 : 2048;
  result.peak = peak_rate(backend, result.peak_size);
  result.copy = copy_rate(backend, backend.device == DeviceKind::cuda ? 65536 : 4096);
  return result;
}

}  // namespace mezzo
