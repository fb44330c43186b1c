#pragma once
#include <cstdint>
#include <functional>
#include <optional>

namespace mezzo {

/// What decides how many probes one forward evaluates.
struct GroupLimits {
  std::int64_t probes = 0;  ///< of a step
  std::int64_t slices = 1;
  std::int64_t ranks = 1;
  std::size_t memory = 0;  ///< bytes that activations and scratch may take
  bool paired = true;      ///< two_sided: both signs of a direction share their noise
};

/// The largest group that gives every rank work and fits: `bytes(group)` is what a forward of that many
/// probes takes. DeviceError when not even one probe fits.
std::int64_t choose_group(const GroupLimits& limits, const std::function<std::size_t(std::int64_t)>& bytes);

/// Work items in the order of slices, then groups; each rank has a consecutive share, so that what probes
/// share below the first perturbed layer is run once a slice and rank.
struct WorkShare {
  std::int64_t first = 0;
  std::int64_t count = 0;
};
WorkShare share_of(std::int64_t items, int rank, int ranks);

}  // namespace mezzo
