#pragma once
// What a step's forwards will need, decided before the first of them.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/stream.h"
#include "mezzo/model/decoder.h"

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

/// The slices of step `step` (0-based), in order: they are cut by the config alone.
std::vector<std::vector<const Example*>> slices_of(const TrainConfig& config, const ExampleStream& stream,
                                                   std::uint64_t step);
/// Elementwise maximum over the slices of all steps of a run, so that it does not depend on where the run
/// goes on from. Of a very long run a bound instead: the largest examples together in one slice.
BatchShape largest_slice(const TrainConfig& config, const ExampleStream& stream, TaskLoss loss);

/// What a step has to share out, in units: one probe on one slice, which fills one slot. Units are in the
/// order of slices, then probes.
struct StepUnits {
  std::int64_t probes = 0;
  std::vector<std::int64_t> slice_tokens;  ///< the load of one unit of each slice
  bool paired = true;                      ///< probes 2k and 2k + 1 share their noise

  std::int64_t slices() const { return static_cast<std::int64_t>(slice_tokens.size()); }
  std::int64_t count() const { return probes * slices(); }
};

/// Consecutive units.
struct WorkShare {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// The share of each rank: consecutive, so that what probes share is run once a slice and rank, and such that
/// the largest load is the least possible. No rank is without a unit unless there are more ranks than units.
/// Shares end with a slice, else with a pair, where that makes no load larger than the largest. A pure
/// function in integers: every rank finds the same shares.
std::vector<WorkShare> share_out(const StepUnits& units, int ranks);

/// What one forward evaluates: consecutive probes of one slice.
struct WorkItem {
  std::int64_t slice = 0;
  std::int64_t first_probe = 0;
  std::int64_t probes = 0;
};
/// The forwards of a share, slice after slice: as few as groups of at most `group` probes allow, of even
/// size, in whole pairs where that makes no more of them.
std::vector<WorkItem> items_of(const StepUnits& units, WorkShare share, std::int64_t group);
/// Those of a step: `slices` as slices_of() cuts them.
StepUnits units_of(std::span<const std::vector<const Example*>> slices, TaskLoss loss, std::int64_t probes,
                   bool paired);
/// The most probes that a rank has of one slice, in the first thousand steps of a run. (A rank that has more
/// in a later step takes one forward more.)
std::int64_t largest_share(const TrainConfig& config, const ExampleStream& stream, TaskLoss loss,
                           std::int64_t probes, bool paired, int ranks);
/// Sum of the units' loads.
std::int64_t load_of(const StepUnits& units, WorkShare share);

}  // namespace mezzo
