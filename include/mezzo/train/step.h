#pragma once
// The step, as docs/architecture.md tells it: forwards, exchange, estimate, update. The trainer, the
// benchmark, the profile and the error benchmark take this one.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/core/config.h"
#include "mezzo/core/stop_signal.h"
#include "mezzo/train/loaded_model.h"
#include "mezzo/train/objective.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/optimizer.h"
#include "mezzo/zo/schedule.h"
#include "mezzo/zo/slots.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {

/// What makes steps the same, whoever takes them.
struct StepRule {
  EstimatorKind estimator = EstimatorKind::two_sided;
  double epsilon = 1e-2;
  Normalization normalize = Normalization::none;
  std::optional<double> normalize_beta = {};  ///< of running means; none: a step by its own losses
  std::int64_t directions = 1;
  RunNoise noise = {};
  Schedule schedule = {};
  std::optional<double> clip = {};
  std::optional<double> step_limit = {};  ///< limited_rate()'s share at the schedule's peak
  std::shared_ptr<const Optimizer> optimizer = configure_optimizer({});

  bool paired() const { return estimator == EstimatorKind::two_sided; }
};
StepRule step_rule(const Config& config);
std::unique_ptr<Estimator> estimator_of(const StepRule& rule);
/// Initial values on a backend, with the optimizer's state before the first step.
TrainedState begin_state(Backend& backend, std::span<const TrainableSpec> trainables,
                         std::span<const float> values, const Optimizer& optimizer);
/// The same of trainables that are on the backend; `specs` theirs.
TrainedState begin_state(Backend& backend, Trainables trainables, std::span<const TrainableSpec> specs,
                         const Optimizer& optimizer);

/// How a rank's forwards are cut.
struct StepShape {
  std::int64_t slices = 1;  ///< of a step
  std::int64_t group = 1;   ///< most probes of a forward
};

/// One call of Step::take().
struct StepCall {
  std::uint64_t step = 0;  ///< 0-based
  const Slices& slices;
  bool hash = false;  ///< compare the trainables of all ranks, as they are before the step
  std::optional<float> learning_rate = {};  ///< none: the schedule's, as far as the step limit allows
  /// Looked at behind the forwards, which may take long: a rank that was asked to stop asks all to stop
  /// behind this step. Null: never.
  const StopSignal* stop = nullptr;
  Patience patience;
};

struct StepResult {
  StepRecord record;
  Estimate estimate;
  std::vector<ProbeLoss> losses;  ///< of each probe
  StepUnits units;
  std::vector<WorkShare> shares;     ///< of each rank
  std::vector<double> work_seconds;  ///< each rank's forwards; 0 of a rank that has none
  // Of this rank, in seconds:
  double hash_seconds = 0.0;
  double exchange_seconds = 0.0;  ///< with the time that it waits for the others
  double update_seconds = 0.0;    ///< to enqueue it: the device may still be at it
  bool stop = false;              ///< a rank asked for it

  /// Tokens through forwards, of all probes and ranks.
  std::int64_t tokens() const { return load_of(units, {.first = 0, .count = units.count()}); }
};

class Step {
 public:
  /// `objective`, `model` and `exchange` must outlive it; the model has room for the groups of `shape`.
  Step(const StepRule& rule, const StepShape& shape, const Objective& objective, LoadedModel& model,
       Exchange& exchange);

  const StepRule& rule() const { return rule_; }
  std::int64_t probe_count() const { return probe_count_; }
  std::vector<Probe> probes(std::uint64_t step) const;

  /// Makes the way of the slots between the ranks' devices: all ranks together, before the first step of
  /// several.
  void connect(Patience patience);
  /// Median seconds of an exchange to which all ranks come at once. The first call brings the connections up.
  double time_exchange(Patience patience);
  /// What carries the slots, with its version; "" for one rank.
  std::string library() const;
  std::size_t words() { return slots_.words().size(); }  ///< of an exchange

  /// Does one step on all ranks; enqueues the update last. CommError when a rank is out of step, RankLost
  /// when ranks were given up.
  StepResult take(const StepCall& call);
  /// The update alone: what take() does with its record.
  void apply(const StepRecord& record);

 private:
  /// Evaluates this rank's share into slots_.
  void evaluate(const StepWork& work, const StepUnits& units, WorkShare share);
  float learning_rate(std::int64_t step, const Estimate& estimate) const;

  StepRule rule_;
  StepShape shape_;
  const Objective& objective_;
  LoadedModel& model_;
  Exchange& exchange_;
  std::unique_ptr<Estimator> estimator_;
  std::int64_t probe_count_;
  SlotTable slots_;
  std::unique_ptr<Transport> transport_;  ///< on the backend's stream; null: the exchange moves the words
};

}  // namespace mezzo
