#pragma once
// A run on disk: its folder, what identifies it, its snapshots and its trajectory, and how trainables come
// back from them. docs/file-formats.md describes the files.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/io/record_file.h"
#include "mezzo/model/lora.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {

/// Where a warning goes: one sentence.
using Warn = std::function<void(const std::string&)>;

/// Names of the files of a run's folder.
struct RunFolder {
  std::string path;

  std::string config() const { return path + "/config.yaml"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string trajectory() const { return path + "/trajectory"; }
  /// And be it damaged; a system that died can leave an empty file, which is none.
  bool has_trajectory() const;
  std::string snapshots() const { return path + "/snapshots"; }
  std::string snapshot(std::uint64_t step) const;
  std::string adapter() const { return path + "/adapter"; }
  std::string initial_adapter() const { return path + "/initial_adapter"; }  ///< copy of lora.adapter
  std::string start_snapshot() const { return path + "/start.h5"; }  ///< copy of another run's snapshot
};

/// What a run is: enough to rebuild its trainables, and to tell whether a config continues it.
struct RunHeader {
  std::vector<IdentityEntry> identity;  ///< config keys, then model.hash, runtime.device, runtime.dtype
  std::string base_model;               ///< path
  std::string base_hash;
  AdapterConfig adapter;
  std::vector<TrainableSpec> trainables;
  std::uint64_t seed = 0;
  std::int64_t directions = 1;
  NoiseKind noise = NoiseKind::gaussian;
  float weight_decay = 0.0f;
  std::uint64_t start_step = 0;                    ///< > 0: began from start.h5
  bool initial_adapter = false;                    ///< began from initial_adapter/
  std::map<std::string, std::string> fingerprint;  ///< what else can change bits

  std::string to_json() const;
  /// InputError naming `source`.
  static RunHeader from_json(const std::string& text, const std::string& source);
};

/// UsageError naming the first key whose value differs, and both values.
void check_identity(const RunHeader& run, const RunHeader& now, const std::string& folder);

/// Trainables at a step, on the host.
struct RunState {
  std::uint64_t step = 0;     ///< steps done
  std::vector<float> values;  ///< all trainables, as in adapters
};

struct Snapshot {
  RunHeader header;
  RunState state;
};
/// Verified and durable when it returns.
void write_snapshot(const std::string& path, const RunHeader& header, const RunState& state);
Snapshot read_snapshot(const std::string& path);

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

/// Applies the records of steps [trainables' step, last_step) on the backend, without a forward.
void replay_records(const std::string& trajectory, const RunHeader& header, std::uint64_t first_step,
                    std::uint64_t last_step, Backend& backend, Trainables& trainables);

/// The newest valid snapshot at or before `step`, else the start. Bad snapshots are named and passed over.
RunState nearest_state(const RunFolder& folder, const RunHeader& header, std::uint64_t step,
                       const Warn& warn);

}  // namespace mezzo
