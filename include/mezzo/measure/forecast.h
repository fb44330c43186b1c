#pragma once
// What a run will take, before there is a device or a weight.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "mezzo/measure/step_time.h"
#include "mezzo/model/layers.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/planner.h"

namespace mezzo {

struct ForecastOptions {
  BackendOptions backend;
  std::optional<std::size_t> memory;  ///< of a rank's device, for everything; none: what is free on the host
  std::vector<int> ranks = {1};  ///< numbers of ranks, not empty: the first is the run's, all are scaled to
  std::optional<StepParts> measured = {};
  ExchangeTime exchange = {};
};

/// What decided the number of probes a forward.
enum class GroupReason : std::uint8_t { asked, fair_share, memory };

/// Floating-point operations, a multiplication and an addition each. As the decoder does them: what probes
/// share once, rows that no loss reads not at all.
struct StepOperations {
  double products = 0.0;
  double low_rank = 0.0;
  double attention = 0.0;

  double total() const { return products + low_rank + attention; }
};

/// A step on some number of ranks: means over the counted steps.
struct StepForecast {
  int ranks = 1;
  std::int64_t working_ranks = 1;  ///< that have a unit
  std::int64_t group = 1;          ///< most probes of a forward
  double largest_load = 0.0;       ///< tokens times probes, of the rank with the most
  double balance = 1.0;            ///< mean load of all ranks over the largest
  std::int64_t words = 0;          ///< that a rank exchanges
  double exchange = 0.0;           ///< seconds
  // Only with measured parts:
  double work = 0.0;  ///< seconds of the rank that takes longest
  double step = 0.0;  ///< seconds
  double speed_up = 1.0;
  double efficiency = 1.0;
};

/// Bytes are a rank's. All but `scaling` is of the first number of ranks.
struct RunForecast {
  std::int64_t layers = 0;
  std::int64_t first_perturbed_layer = 0;
  ParameterCount parameters;    ///< of the model
  std::int64_t trainables = 0;  ///< numbers
  BatchShape largest;           ///< of the slices
  std::int64_t slices = 0;
  std::int64_t probes = 0;  ///< of a step
  GroupPlan plan;
  GroupReason reason = GroupReason::asked;
  std::size_t weight_bytes = 0;
  std::size_t trainable_bytes = 0;
  std::size_t optimizer_bytes = 0;              ///< what the optimizer keeps
  std::size_t evaluation_activation_bytes = 0;  ///< 0: nothing to evaluate
  std::size_t evaluation_scratch_bytes = 0;
  std::optional<std::size_t> memory;  ///< there is, for everything

  /// One arena and one scratch serve steps and evaluations.
  std::size_t total_bytes() const;

  std::int64_t counted_steps = 0;  ///< that the operations are means of
  double forwards = 0.0;           ///< of a step, on all ranks
  StepOperations step;             ///< of all ranks
  double rank_products = 0.0;      ///< of the rank with the most

  std::vector<StepForecast> scaling;  ///< one for each number of ranks
};

/// UsageError when the group depends on the memory of a card and that is not given, DeviceError when there
/// is too little.
RunForecast forecast_run(const Config& config, const Description& description, const WorkInputs& inputs,
                         const ForecastOptions& options);

}  // namespace mezzo
