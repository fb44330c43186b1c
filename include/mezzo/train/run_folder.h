#pragma once
// The names of the files of a run's folder; docs/file-formats.md says what they hold.
#include <cstdint>
#include <functional>
#include <string>

namespace mezzo {

/// Where a warning goes: one sentence.
using Warn = std::function<void(const std::string&)>;

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

}  // namespace mezzo
