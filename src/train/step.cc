#include "mezzo/train/step.h"

#include <chrono>
#include <cmath>

#include "mezzo/comm/together.h"
#include "mezzo/train/ranks.h"
#include "mezzo/zo/step_limit.h"

namespace mezzo {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return Seconds(Clock::now() - start).count(); }

/// A step's part of zo.step_limit, which is a whole run's: the rise of a step goes with the square of its
/// rate.
std::optional<double> step_share(const Config& config) {
  if (!config.zo.step_limit) return {};
  return *config.zo.step_limit / configure_schedule(config).squares();
}

}  // namespace

StepRule step_rule(const Config& config) {
  return {.estimator = config.zo.estimator,
          .epsilon = config.zo.epsilon,
          .normalize = config.zo.normalize,
          .normalize_beta = config.zo.normalize_beta,
          .directions = config.zo.directions,
          .noise = {.seed = config.train.seed,
                    .noise = config.zo.noise,
                    .resample_steps = config.zo.resample_steps},
          .schedule = configure_schedule(config),
          .clip = config.optimizer.clip,
          .step_limit = step_share(config),
          .optimizer = configure_optimizer(config.optimizer)};
}

std::unique_ptr<Estimator> estimator_of(const StepRule& rule) {
  return make_estimator(rule.estimator, rule.epsilon, rule.normalize, rule.step_limit.has_value(),
                        rule.normalize_beta);
}

TrainedState begin_state(Backend& backend, std::span<const TrainableSpec> trainables,
                         std::span<const float> values, const Optimizer& optimizer) {
  return begin_state(backend, make_trainables(backend, trainables, values, optimizer.master()), trainables,
                     optimizer);
}

TrainedState begin_state(Backend& backend, Trainables trainables, std::span<const TrainableSpec> specs,
                         const Optimizer& optimizer) {
  const std::vector<TrainableSpec> kept = optimizer.state(specs);
  const std::vector<float> zeros(static_cast<std::size_t>(element_count(kept)), 0.0f);
  return {.trainables = std::move(trainables), .optimizer = make_trainables(backend, kept, zeros)};
}

Step::Step(const StepRule& rule, const StepShape& shape, const Objective& objective, LoadedModel& model,
           Exchange& exchange)
    : rule_(rule),
      shape_(shape),
      objective_(objective),
      model_(model),
      exchange_(exchange),
      estimator_(estimator_of(rule)),
      probe_count_(static_cast<std::int64_t>(probes(0).size())),
      slots_(probe_count_, shape.slices, exchange.size()) {}

std::vector<Probe> Step::probes(std::uint64_t step) const {
  return estimator_->probes(direction_seeds(rule_.noise, step, rule_.directions));
}

void Step::connect(Patience patience) {
  transport_ = make_transport(exchange_, model_.backend, words(), patience);
}

double Step::time_exchange(Patience patience) {
  return exchange_seconds(exchange_, transport_.get(), words(), patience);
}

std::string Step::library() const { return transport_ ? transport_->library() : exchange_.library(); }

void Step::evaluate(const StepWork& work, const StepUnits& units, WorkShare share) {
  slots_.clear();
  const Clock::time_point start = Clock::now();
  objective_.evaluate(model_.runner, work, items_of(units, share, shape_.group),
                      [&](std::int64_t probe, std::int64_t slice, SlotValue value) {
                        slots_.set(probe, slice, work.probes[static_cast<std::size_t>(probe)].seed, value.sum,
                                   value.weight);
                      });
  slots_.set_work_seconds(exchange_.rank(), seconds_since(start));
}

StepResult Step::take(const StepCall& call) {
  const auto number = static_cast<std::int64_t>(call.step);
  const auto rank = static_cast<std::size_t>(exchange_.rank());
  exchange_.doing(Phase::forward, call.step + 1);
  const std::vector<Probe> of_step = probes(call.step);
  StepResult result;
  result.units = units_of(objective_, call.slices, probe_count_, rule_.paired());
  result.shares = share_out(result.units, exchange_.size());
  evaluate({.step = call.step, .probes = of_step, .slices = call.slices, .noise = rule_.noise.noise},
           result.units, result.shares[rank]);
  if (call.hash) {
    const Clock::time_point start = Clock::now();
    slots_.set_hash(exchange_.rank(), model_.backend.hash(model_.state.trainables));
    result.hash_seconds = seconds_since(start);
  }
  if (call.stop != nullptr && call.stop->requested()) slots_.set_stop(exchange_.rank());

  const Clock::time_point exchange_start = Clock::now();
  require_complete(exchange_, exchange_.sum(slots_.words(), call.patience, transport_.get()));
  result.exchange_seconds = seconds_since(exchange_start);
  exchange_.doing(Phase::update, call.step + 1);
  if (call.hash) slots_.check_hashes(number);
  result.work_seconds = slots_.work_seconds();
  result.stop = slots_.stop_requested();
  result.losses = slots_.losses(of_step, number);
  result.estimate = estimator_->estimate(result.losses, model_.state.estimator);
  if (rule_.clip) clip_coefficients(result.estimate, *rule_.clip);

  result.record = {.step = call.step,
                   .learning_rate = call.learning_rate.value_or(learning_rate(number, result.estimate)),
                   .coefficients = result.estimate.coefficients,
                   .loss = result.estimate.loss,
                   .gradient_norm = result.estimate.gradient_norm(),
                   .probe_losses = {},
                   .estimator = result.estimate.state};
  if (rule_.optimizer->reads_probe_losses()) {
    for (const ProbeLoss& loss : result.losses)
      result.record.probe_losses.push_back(loss.good ? loss.mean() : std::nan(""));
  }
  const Clock::time_point update_start = Clock::now();
  apply(result.record);
  result.update_seconds = seconds_since(update_start);
  return result;
}

/// The schedule's rate at step `step`; where its peak is above the limit, as if the peak were the limit.
float Step::learning_rate(std::int64_t step, const Estimate& estimate) const {
  const float scheduled = rule_.schedule.at(step);
  if (!rule_.step_limit) return scheduled;
  const double peak = rule_.schedule.learning_rate;
  const double limit = limited_rate(estimate, *rule_.optimizer, *rule_.step_limit).value_or(peak);
  return limit < peak ? static_cast<float>(static_cast<double>(scheduled) * (limit / peak)) : scheduled;
}

void Step::apply(const StepRecord& record) {
  TrainedState& state = model_.state;
  rule_.optimizer->apply(record, rule_.noise, model_.backend, state.trainables, state.optimizer);
  state.estimator = record.estimator;
  model_.decoder.refresh();
}

}  // namespace mezzo
