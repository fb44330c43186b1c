#include "mezzo/train/planner.h"

#include <algorithm>

#include "mezzo/core/error.h"

namespace mezzo {

std::int64_t choose_group(const GroupLimits& limits, const std::function<std::size_t(std::int64_t)>& bytes) {
  const std::int64_t fair = std::clamp<std::int64_t>(
      (limits.probes * limits.slices + limits.ranks - 1) / limits.ranks, 1, limits.probes);
  // bytes() grows with the group: the largest that fits, by bisection.
  if (bytes(1) > limits.memory) {
    throw DeviceError(
        "one probe's forward needs {} MiB, but {} MiB are free; a smaller train.batch_size, more "
        "train.batch_slices or a smaller data.max_length needs less",
        bytes(1) >> 20, limits.memory >> 20);
  }
  std::int64_t fits = 1;
  std::int64_t too_large = fair + 1;
  while (too_large - fits > 1) {
    const std::int64_t middle = fits + (too_large - fits) / 2;
    (bytes(middle) <= limits.memory ? fits : too_large) = middle;
  }
  // Equal groups: as many as `fits` makes necessary, no larger than they need be.
  const std::int64_t groups = (fair + fits - 1) / fits;
  std::int64_t group = (fair + groups - 1) / groups;
  if (limits.paired && group % 2 == 1 && group > 1) group += group + 1 <= fits ? 1 : -1;
  return group;
}

WorkShare share_of(std::int64_t items, int rank, int ranks) {
  const std::int64_t first = items * rank / ranks;
  return {.first = first, .count = items * (rank + 1) / ranks - first};
}

}  // namespace mezzo
