#pragma once
// The snapshots of a run: what one holds, what the files are called and which of them stay.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/train/run_header.h"

namespace mezzo {

/// What training has changed up to a step, on the host.
struct RunState {
  std::uint64_t step = 0;              ///< steps done
  std::vector<float> values;           ///< all trainables, as in adapters
  std::vector<float> optimizer = {};   ///< the tensors of RunHeader::optimizer_state(), in that order
  std::vector<double> estimator = {};  ///< the numbers that records hold of it (RecordShape::estimator)
};

struct Snapshot {
  RunHeader header;
  RunState state;
};
/// Verified and durable when it returns.
void write_snapshot(const std::string& path, const RunHeader& header, const RunState& state);
Snapshot read_snapshot(const std::string& path);
/// The same, of the run that `header` identifies unless null, at a step that is known; another one is an
/// InputError.
Snapshot read_own_snapshot(const std::string& path, const RunHeader* header, std::uint64_t step);

struct SnapshotFile {
  std::uint64_t step = 0;
  std::string path;
};

/// "step-N.h5".
std::string snapshot_name(std::uint64_t step);
/// The files step-N.h5 of a folder, newest (largest N) first; other names are passed over, a missing folder
/// has none. Their contents are not looked at.
std::vector<SnapshotFile> list_snapshots(const std::string& directory);
/// Removes the snapshots behind `step` (none: all), with the checksums beside them.
void remove_snapshots(const std::string& directory, std::optional<std::uint64_t> step = std::nullopt);
/// Removes the oldest snapshots until `limit` (at least 1) are left of those up to `newest_good_step`, a step
/// that the caller has just committed or read: that one always stays, and so do later ones, and so does the
/// one of step `best` beyond the limit. Also removes sidecars that belong to no file. Returns the paths of
/// the removed snapshots. Call it under the run's lock.
std::vector<std::string> prune_snapshots(const std::string& directory, std::size_t limit,
                                         std::uint64_t newest_good_step,
                                         std::optional<std::uint64_t> best = std::nullopt);

}  // namespace mezzo
