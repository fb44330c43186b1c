#pragma once
// How a step's record changes the trainables. An optimizer is made from a config, or again from a run's
// record; it is pure: trainables and state after a step are a function of those before it and of the record,
// the same bits on every rank, on any backend and in a replay, which rebuilds the state by doing the steps
// again.
//
// A rule for single elements is a case in mezzo/core/update.h and in src/zo/optimizer_rules.cc; an optimizer
// of another kind is one file (src/zo/optimizer_NAME.cc). Either is a line in src/zo/optimizer.cc.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/core/config.h"
#include "mezzo/model/trainable_values.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {

class JsonCursor;

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Its name in configs and records: "sgd".
  virtual std::string_view kind() const = 0;
  /// A JSON object of all that decides the update besides the kind and the records: written into a run's
  /// record, and enough to make the optimizer again.
  virtual nlohmann::ordered_json constants() const = 0;
  /// The tensors that it keeps from step to step, in bytewise order of their names; zero before the first
  /// step. They lie in the group /optimizer of a snapshot.
  virtual std::vector<TrainableSpec> state(std::span<const TrainableSpec> trainables) const = 0;
  /// Whether a record must hold the losses of its step's probes (StepRecord::probe_losses).
  virtual bool reads_probe_losses() const { return false; }

  /// What the trainables are held in: F32 or BF16.
  virtual DType master() const { return DType::f32; }

  /// The variance that an element gains a step at learning rate 1 while coefficients, whose squares have this
  /// sum, come from noise alone: of a random walk, as it goes on average over many steps.
  virtual double walk_variance(double squares) const = 0;

  /// Changes `trainables` and `state` (the tensors of state()) as the record of the next step says. Enqueues.
  virtual void apply(const StepRecord& record, const RunNoise& run, Backend& backend, Trainables& trainables,
                     Trainables& state) const = 0;
};

std::shared_ptr<const Optimizer> configure_optimizer(const OptimizerConfig& config);
/// The optimizer of a record: its kind and, of the object `constants`, its constants(). InputError that names
/// what is wrong, an unknown kind included.
std::shared_ptr<const Optimizer> recorded_optimizer(const std::string& kind, const JsonCursor& constants);

}  // namespace mezzo
