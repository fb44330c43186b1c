#pragma once
// How a step's work is shared out over ranks and cut into forwards. Integers alone: every rank finds the
// same.
#include <cstdint>
#include <vector>

namespace mezzo {

/// a / b, rounded up.
inline std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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
/// Shares end with a slice, else with a pair, where that makes no load larger than the largest.
std::vector<WorkShare> share_out(const StepUnits& units, int ranks);
/// Sum of the units' loads.
std::int64_t load_of(const StepUnits& units, WorkShare share);

/// What one forward evaluates: consecutive probes of one slice.
struct WorkItem {
  std::int64_t slice = 0;
  std::int64_t first_probe = 0;
  std::int64_t probes = 0;
};
/// The forwards of a share, slice after slice: as few as groups of at most `group` probes allow, of even
/// size, in whole pairs where that makes no more of them.
std::vector<WorkItem> items_of(const StepUnits& units, WorkShare share, std::int64_t group);

}  // namespace mezzo
