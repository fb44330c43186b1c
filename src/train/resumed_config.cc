#include "mezzo/train/resumed_config.h"

#include <algorithm>
#include <map>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"
#include "mezzo/train/replay.h"
#include "mezzo/train/snapshots.h"

namespace mezzo {

namespace {

/// The header of a folder's run where that has finished steps: of its trajectory, else of a snapshot.
std::optional<RunHeader> header_in(const RunFolder& folder) {
  try {
    if (folder.has_trajectory()) {
      TrajectoryScan scan = scan_trajectory(folder.trajectory(), 1);
      if (scan.end_step > 0) return std::move(scan.header);
    }
  } catch (const Error&) {  // then its snapshots may do
  }
  for (const SnapshotFile& file : list_snapshots(folder.snapshots())) {
    try {
      return read_snapshot(file.path).header;
    } catch (const Error&) {  // nor is this one good
    }
  }
  return std::nullopt;
}

/// All values of a record that a config can take over, by key.
std::map<std::string, std::string> values_of(const Config& config, const RunHeader& run) {
  const std::vector<IdentityEntry> before = values_before_records();
  std::map<std::string, std::string> values;
  for (const auto* entries : {&before, &run.settings}) {
    for (const IdentityEntry& entry : *entries) values[entry.key] = entry.value;
  }
  for (const IdentityEntry& entry : run.identity) {
    // Of files it holds what they contain; where they lay is among the settings.
    if (!entry.value.starts_with("sha256:")) values[entry.key] = entry.value;
  }
  // A run on a card that is not here is another one: check_identity() says so better than the backend. And a
  // precision goes with its device.
  const auto device = values.find("runtime.device");
  const bool here =
      device != values.end() && (device->second != name_of(Device::cuda) || cuda_available(nullptr));
  const bool same = here && (!config.written.contains("runtime.device") ||
                             device->second == name_of(config.runtime.device));
  if (!same) values.erase("runtime.dtype");
  if (!here) values.erase("runtime.device");
  return values;
}

}  // namespace

std::optional<RunHeader> run_to_continue(const Config& config, bool overwrite) {
  const ResumeFrom& from = config.train.resume_from_checkpoint;
  switch (from.kind) {
    case ResumeFrom::Kind::never:
      return std::nullopt;
    case ResumeFrom::Kind::automatic:
      return overwrite ? std::nullopt : header_in({config.train.output_dir.value()});
    case ResumeFrom::Kind::snapshot:
      try {
        return read_snapshot(from.path).header;
      } catch (const Error&) {
        return std::nullopt;
      }
  }
  throw Error("train.resume_from_checkpoint has the unknown kind {}", static_cast<int>(from.kind));
}

Config resumed_config(const Config& config, const RunHeader& run) {
  std::vector<IdentityEntry> entries;
  for (const auto& [key, value] : values_of(config, run)) entries.push_back({key, value});
  try {
    Config resumed = config;
    adopt_unwritten(resumed, entries, "the run's record");
    // Read once more, so that what has to go together does.
    Config checked = parse_config(to_yaml(resumed), "the run's record", {}, ConfigUse::train);
    checked.written = config.written;
    return checked;
  } catch (const UsageError&) {
    return config;
  }
}

std::string taken_over(const Config& config, const Config& resumed) {
  const auto entries_of = [](const Config& of) {
    std::vector<IdentityEntry> entries = identity(of);
    for (IdentityEntry& entry : settings(of)) entries.push_back(std::move(entry));
    return entries;
  };
  const std::vector<IdentityEntry> before = entries_of(config);
  std::string text;
  for (const IdentityEntry& entry : entries_of(resumed)) {
    if (std::ranges::find(before, entry) != before.end()) continue;
    text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", entry.key, entry.value);
  }
  return text;
}

}  // namespace mezzo
