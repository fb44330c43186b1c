#pragma once
// What a config names, opened and checked before any weight is loaded.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mezzo/backend/devices.h"
#include "mezzo/comm/exchange.h"
#include "mezzo/core/config.h"
#include "mezzo/data/stream.h"
#include "mezzo/data/task.h"
#include "mezzo/model/model_files.h"
#include "mezzo/train/objective.h"
#include "mezzo/train/rewarded_generation.h"
#include "mezzo/zo/parameter_space.h"

namespace mezzo {

/// How long a rank may give no heartbeat: runtime.timeout_s, but not less than ten heartbeats take.
Seconds tolerated_silence(const RuntimeConfig& config);
/// For what reads weights and data, or does work that was never timed: many of the config's timeouts.
Patience loading_patience(const RuntimeConfig& config);

/// The device, the precision and the threads that a config's `runtime` section comes down to on this machine.
struct Placement {
  DeviceKind device = DeviceKind::cpu;
  bool fp32 = true;
  int threads = 1;
  int device_index = 0;          ///< of cuda_devices()
  std::string device_uuid = {};  ///< of a card; "" of a host

  BackendOptions backend_options() const;
  std::string device_name() const;  ///< "cpu", "cuda", "reference": part of a run's identity
  std::string dtype_name() const;   ///< "fp32", "bf16"
};
/// This rank's fair part of the processors that it may run on (core/limits.h). All ranks call it together.
int threads_of_rank(Exchange& exchange, Patience patience);
/// Rank r of a host takes its card r, or the only card that its launcher shows it. UsageError when the
/// combination is not served, DeviceError when the device is not there.
/// `threads`: what runtime.threads: auto comes to, threads_of_rank().
Placement place(const RuntimeConfig& config, const Exchange& exchange, int threads);
/// Throws JobFailed on all ranks when two of them have taken the same card.
void check_own_devices(Exchange& exchange, const Placement& placement, Patience patience);
/// All of it for a verb, on all ranks together.
Placement place_together(const RuntimeConfig& config, Exchange& exchange, Patience patience);
/// The same for a plan, with `local_ranks` ranks on each host: a device that is asked for need not be there.
Placement plan_placement(const RuntimeConfig& config, int local_ranks);

/// Tokenizer, data and adapter of a config: what a run works on, but for the weights. Not movable: the task
/// refers to the tokenizer.
class WorkInputs {
 public:
  /// Opens data.train only for ConfigUse::train, and refuses then what this host cannot list; and for an
  /// evaluation of what data.validation_fraction holds out.
  /// `saved_adapter`: a run's own copy of lora.adapter, taken when the original is gone; "" for none.
  WorkInputs(const Description& description, const Config& config, ConfigUse use,
             const std::string& saved_adapter);
  WorkInputs(const WorkInputs&) = delete;
  WorkInputs& operator=(const WorkInputs&) = delete;

  /// tokenizer_hash() of what was read, with a chat's template; "" but for training.
  std::string tokenizer_hash;
  std::unique_ptr<Tokenizer> tokenizer;
  Task task;
  std::optional<ExampleStream> train;
  std::vector<Example> validation;    ///< of data.validation or held out; empty without either
  std::vector<std::string> warnings;  ///< of the data
  std::shared_ptr<const ParameterSpace> space;
  std::optional<NamedStart> start;                 ///< lora.adapter
  std::unique_ptr<RewardedGeneration> generation;  ///< of a generation task
  std::unique_ptr<Objective> objective;

  /// What the trainables are before the first step.
  std::vector<float> initial_values(const Config& config) const {
    return start ? start->values : space->initial_values(config.train.seed, config.model.path);
  }
};

/// With the model's files.
class Inputs : public WorkInputs {
 public:
  Inputs(const Config& config, ConfigUse use, const std::string& saved_adapter)
      : Inputs(ModelFiles(config.model.path), config, use, saved_adapter) {}

  ModelFiles files;

 private:
  Inputs(ModelFiles opened, const Config& config, ConfigUse use, const std::string& saved_adapter)
      : WorkInputs(opened.description, config, use, saved_adapter), files(std::move(opened)) {}
};

/// Tokens an example may have: data.max_length, or the model's positions.
std::int64_t max_length_of(const DataConfig& config, const Description& description);

}  // namespace mezzo
