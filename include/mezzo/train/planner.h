#pragma once
// The planner decides, before the first step and without a device, how a step is cut into forwards:
//   slices      parts of a step's batch, cut by the config alone
//   shares      which units (probe, slice) each rank evaluates: a pure function in integers
//   group       how many probes one forward evaluates, from the share and from the memory there is
//   work items  the forwards of a share
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "mezzo/core/config.h"
#include "mezzo/data/stream.h"
#include "mezzo/model/decoder.h"
#include "mezzo/train/objective.h"

namespace mezzo {

/// What decides how many probes one forward evaluates.
struct GroupLimits {
  std::int64_t probes = 0;  ///< of a step
  std::int64_t share = 0;   ///< of these, the most that a rank has of one slice
  std::size_t memory = 0;   ///< bytes that activations and scratch may take
  bool paired = true;       ///< two_sided: both signs of a direction share their noise
};

/// Probes a forward: a rank's share where that fits, else even groups of it, in as few forwards as the memory
/// allows and in pairs where that makes no more of them. `bytes(group)` is what a forward of that many probes
/// takes. DeviceError when not even one probe fits.
std::int64_t choose_group(const GroupLimits& limits, const std::function<std::size_t(std::int64_t)>& bytes);

/// What a rank's forwards take.
struct GroupPlan {
  std::int64_t group = 1;            ///< probes a forward
  std::size_t activation_bytes = 0;  ///< of the decoder's arena
  std::size_t scratch_bytes = 0;     ///< of the backend's
};
/// `asked` probes a forward (no more than there are), or as many as choose_group says. `largest`: of a
/// step's slices. Needs no device.
GroupPlan plan_group(const Decoder& decoder, const DevicePlan& device, const BatchShape& largest,
                     const GroupLimits& limits, std::optional<std::int64_t> asked);

/// How many probes and slices a step has.
std::int64_t probes_of_step(const ZoConfig& config);
std::int64_t slices_of_step(const TrainConfig& config);
/// The limits of a run's forwards on each of `ranks` ranks. `memory`: a rank's, for activations and scratch.
GroupLimits group_limits(const Config& config, const ExampleStream& stream, const Objective& objective,
                         int ranks, std::size_t memory);

/// The slices of step `step` (0-based), in order: they are cut by the config alone.
Slices slices_of(const TrainConfig& config, const ExampleStream& stream, std::uint64_t step);
/// Elementwise maximum over the slices of all steps of a run, so that it does not depend on where the run
/// goes on from. Of a very long run a bound instead: the largest examples together in one slice.
BatchShape largest_slice(const TrainConfig& config, const ExampleStream& stream, const Objective& objective);

/// The most probes that a rank has of one slice, in the first thousand steps of a run. (A rank that has more
/// in a later step takes one forward more.)
std::int64_t largest_share(const TrainConfig& config, const ExampleStream& stream, const Objective& objective,
                           std::int64_t probes, bool paired, int ranks);
}  // namespace mezzo
