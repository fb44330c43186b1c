#pragma once
// What the slots of a step hold: work items in, one value a slot out. A likelihood loss needs one forward an
// item; the reward of what a probe writes (rewarded_generation.h) as many as that takes, then a grader.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "mezzo/data/loss_batch.h"
#include "mezzo/train/probe_runner.h"
#include "mezzo/train/work.h"

namespace mezzo {

/// The examples of a step's slices, in order.
using Slices = std::vector<std::vector<const Example*>>;

/// A step's work: every probe on every slice.
struct StepWork {
  std::uint64_t step = 0;  ///< 0-based
  std::span<const Probe> probes;
  const Slices& slices;
  NoiseKind noise = NoiseKind::gaussian;
};

/// Over the examples of one slice. A step's value is the sum of all values over the sum of all weights; it is
/// what the run makes smaller.
struct SlotValue {
  double sum = 0.0;  ///< not finite: the direction is dropped
  double weight = 0.0;
};
using SlotSink = std::function<void(std::int64_t probe, std::int64_t slice, SlotValue)>;

/// Pure: a slot's value depends on the run's config, the trainables, and the slot's own probe, examples and
/// step, never on the other items or on the rank.
class Objective {
 public:
  virtual ~Objective() = default;

  // ---- what it takes, without a device
  /// The packed batch that an example alone would be. A slice's sizes are the sums over its examples.
  virtual BatchShape shape_of(const Example& example) const = 0;
  /// What to reserve for slices of these sizes.
  virtual BatchShape room_for(const BatchShape& largest) const { return largest; }
  /// Tokens that a probe runs for an example: its part of a unit's load.
  virtual std::int64_t tokens_of(const Example& example) const = 0;

  // ---- the work
  /// Evaluates `items`, slice after slice, each item as one group of probes, and hands on each slot's value.
  /// The runner has room for them. Waits.
  virtual void evaluate(ProbeRunner& runner, const StepWork& work, std::span<const WorkItem> items,
                        const SlotSink& sink) const = 0;
};

/// The likelihood losses of mezzo/data/loss_batch.h.
std::unique_ptr<Objective> make_likelihood(LossRule rule);

/// The units of a step, to be shared out over ranks.
StepUnits units_of(const Objective& objective, const Slices& slices, std::int64_t probes, bool paired);

}  // namespace mezzo
