#pragma once
// A run's folder: the names of its files, and what of a folder's content is a run's own.
// docs/file-formats.md says what the files hold.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "mezzo/core/log.h"

namespace mezzo {

/// Where a warning goes: one sentence.
using Warn = std::function<void(const std::string&)>;
/// To a log, which has to outlive it.
inline Warn warn_to(Logger& log) {
  return [&log](const std::string& text) { log.warning("{}", text); };
}

struct RunFolder {
  std::string path;

  std::string config() const { return path + "/config.yaml"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string trajectory() const { return path + "/trajectory"; }
  /// And be it damaged; a system that died can leave an empty file, which is none.
  bool has_trajectory() const;
  std::string damaged_trajectory(int number) const;  ///< one that was set aside; numbers begin at 1
  std::string snapshots() const { return path + "/snapshots"; }
  std::string snapshot(std::uint64_t step) const;
  std::string adapter() const { return path + "/adapter"; }
  std::string model() const { return path + "/model"; }  ///< in place of adapter() where weights are trained
  std::string initial_adapter() const { return path + "/initial_adapter"; }  ///< copy of lora.adapter
  std::string start_snapshot() const { return path + "/start.h5"; }  ///< copy of another run's snapshot
  /// Copy of the own snapshot that a damaged trajectory was replaced by.
  std::string start_snapshot(std::uint64_t step) const;
  std::string starting() const { return path + "/.starting"; }  ///< there while a start writes its files
};

/// How far the run in a folder has come, at most.
enum class RunProgress {
  none,      ///< not begun: a lock, an empty snapshots/
  starting,  ///< a start was interrupted: also config.yaml, initial_adapter/, start.h5
  started,   ///< no step is done: also trajectory, trajectory.damaged-N, start-N.h5, metrics.jsonl
};

/// The path of something in the folder that a run which has come so far has not written; nothing where all is
/// its own. Removes temporaries that killed writers left. Call it under the folder's lock.
std::optional<std::string> find_foreign(const RunFolder& folder, RunProgress progress);

/// Removes what a run has written into a folder, but for config.yaml, trajectory and what `keep` says of a
/// path.
void remove_run(const RunFolder& folder, const std::function<bool(const std::string&)>& keep);

}  // namespace mezzo
