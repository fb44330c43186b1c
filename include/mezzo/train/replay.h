#pragma once
// How trainables come back from a run's files, without a forward: its start or a snapshot, then the
// trajectory's records.
#include <cstdint>
#include <optional>
#include <string>

#include "mezzo/io/record_file.h"
#include "mezzo/train/run_folder.h"
#include "mezzo/train/run_header.h"
#include "mezzo/train/snapshots.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {

/// A trajectory's header and the records that are good.
struct TrajectoryScan {
  RunHeader header;
  std::uint64_t end_step = 0;     ///< steps done after the last good record
  std::uint64_t valid_bytes = 0;  ///< up to `end_step`
  RecordEnd end;
};
/// Reads a trajectory up to `last_step` (none: all). InputError when a good record is not the step that it
/// should be.
TrajectoryScan scan_trajectory(const std::string& path,
                               std::optional<std::uint64_t> last_step = std::nullopt);

/// State before the first record: initial values, the initial adapter or start.h5.
RunState start_state(const RunFolder& folder, const RunHeader& header);

/// A run's trainables and its optimizer's state in a backend's memory, and what its estimator keeps.
struct TrainedState {
  Trainables trainables;
  Trainables optimizer;
  std::vector<double> estimator = {};  ///< empty: as before the first step
};
TrainedState load_state(Backend& backend, const RunHeader& header, const RunState& state);
/// And back, as the state after `step` steps. Waits.
RunState read_state(Backend& backend, const TrainedState& state, std::uint64_t step);

/// Applies the records of steps [first_step, last_step) to the state after `first_step`, without a forward.
void replay_records(const std::string& trajectory, const RunHeader& header, std::uint64_t first_step,
                    std::uint64_t last_step, Backend& backend, TrainedState& state);
/// The state after `last_step` from an earlier one, on the CPU.
RunState replayed(const std::string& trajectory, const RunHeader& header, const RunState& from,
                  std::uint64_t last_step);

/// The newest good snapshot of steps [first_step, last_step], of the run that `header` identifies unless
/// null. Bad ones are named and passed over.
std::optional<Snapshot> newest_good_snapshot(const RunFolder& folder, const RunHeader* header,
                                             std::uint64_t first_step, std::uint64_t last_step,
                                             const Warn& warn);

/// The newest valid snapshot at or before `step`, else the start. Bad snapshots are named and passed over.
RunState nearest_state(const RunFolder& folder, const RunHeader& header, std::uint64_t step,
                       const Warn& warn);
/// The state after `step`: that, and the trajectory's records behind it, on the CPU. InputError where the
/// trajectory begins later or ends before.
RunState state_after(const RunFolder& folder, const RunHeader& header, std::uint64_t step, const Warn& warn);

}  // namespace mezzo
