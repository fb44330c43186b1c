#pragma once
// What a run can be rebuilt to from its files, and how its folder is put in order where the trajectory is
// damaged.
#include <cstdint>
#include <optional>
#include <string>

#include "mezzo/train/best_step.h"
#include "mezzo/train/replay.h"

namespace mezzo {

/// What the files of a run are good for.
struct RunContent {
  enum class Trajectory {
    good,     ///< whole, or with a torn end
    damaged,  ///< in the middle; good up to `step` unless `snapshot` is there
    useless,  ///< by its header; `header` is the snapshot's
  };
  RunHeader header;
  std::uint64_t step = 0;            ///< steps done after the last one that can be rebuilt
  std::uint64_t valid_bytes = 0;     ///< of the trajectory up to `step`; 0 where `snapshot` replaces it
  std::optional<RunState> snapshot;  ///< the newest good one, where the trajectory is not good up to it
  Trajectory trajectory = Trajectory::good;
  std::string damage;  ///< a sentence; "" where the trajectory is whole
};

/// Looks at a folder that has a trajectory and changes nothing. Bad snapshots are named and passed over.
/// InputError when the trajectory's header is damaged and no snapshot is good.
RunContent examine_run(const RunFolder& folder, const Warn& warn);

/// The best of a run's first `steps` steps, by its metrics.jsonl, where its config.yaml says that the best
/// step is the result; nothing where the last one is. Changes nothing. A config.yaml that cannot be read is
/// named, and says nothing.
std::optional<BestStep> best_of_run(const RunFolder& folder, std::uint64_t steps, const Warn& warn);

/// Puts a trajectory that was damaged in the middle or at its header aside, as trajectory.damaged-N, and in
/// its place one that goes on: from a copy of `content.snapshot`, with the good records of the steps behind
/// it, or else the good records before the damage. Returns what the folder holds then. A good trajectory is
/// left alone. Call it under the folder's lock. A crash leaves the old trajectory or the new one.
RunContent repair_trajectory(const RunFolder& folder, const RunContent& content, const Warn& warn);

/// Puts a trajectory that has no record yet in the place of any other; returns its length.
std::uint64_t begin_trajectory(const RunFolder& folder, const RunHeader& header);

}  // namespace mezzo
