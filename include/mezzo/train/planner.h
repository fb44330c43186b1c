#pragma once
// What a step's forwards will need, decided before the first of them.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/stream.h"
#include "mezzo/model/decoder.h"

namespace mezzo {

/// What decides how many probes one forward evaluates.
struct GroupLimits {
  std::int64_t probes = 0;  ///< of a step
  std::int64_t slices = 1;
  std::int64_t ranks = 1;
  std::size_t memory = 0;  ///< bytes that activations and scratch may take
  bool paired = true;      ///< two_sided: both signs of a direction share their noise
};

/// Probes a forward that leave every rank work, whatever the memory.
std::int64_t fair_share(const GroupLimits& limits);
/// The largest group that gives every rank work and fits: `bytes(group)` is what a forward of that many
/// probes takes. DeviceError when not even one probe fits.
std::int64_t choose_group(const GroupLimits& limits, const std::function<std::size_t(std::int64_t)>& bytes);

/// What a rank's forwards take.
struct GroupPlan {
  std::int64_t group = 1;            ///< probes a forward
  std::int64_t directions = 1;       ///< most directions of a forward
  std::size_t activation_bytes = 0;  ///< of the decoder's arena
  std::size_t scratch_bytes = 0;     ///< of the backend's
};
/// `asked` probes a forward (no more than there are), or as many as choose_group says. `directions`: of a
/// step; `largest`: of its slices. Needs no device.
GroupPlan plan_group(const Decoder& decoder, const DevicePlan& device, const BatchShape& largest,
                     std::int64_t directions, const GroupLimits& limits, std::optional<std::int64_t> asked);

/// The slices of step `step` (0-based), in order: they are cut by the config alone.
std::vector<std::vector<const Example*>> slices_of(const TrainConfig& config, const ExampleStream& stream,
                                                   std::uint64_t step);
/// Elementwise maximum over the slices of all steps of a run, so that it does not depend on where the run
/// goes on from. Of a very long run a bound instead: the largest examples together in one slice.
BatchShape largest_slice(const TrainConfig& config, const ExampleStream& stream, TaskLoss loss);

/// Work items in the order of slices, then groups; each rank has a consecutive share, so that what probes
/// share below the first perturbed layer is run once a slice and rank.
struct WorkShare {
  std::int64_t first = 0;
  std::int64_t count = 0;
};
WorkShare share_of(std::int64_t items, int rank, int ranks);

}  // namespace mezzo
