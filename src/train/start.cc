#include "mezzo/train/start.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/hdf5_file.h"

namespace mezzo {

namespace {

/// Whether a folder's trajectory holds a finished step, or begins behind one. Reads one record at most.
bool has_finished_steps(const RunFolder& folder) {
  return folder.has_trajectory() && scan_trajectory(folder.trajectory(), 1).end_step > 0;
}

/// Whether a folder has what the end of a run at `step` leaves: that step's snapshot and adapter, undamaged.
bool is_complete(const RunFolder& folder, const RunHeader& header, std::uint64_t step) {
  try {
    const RunState state = nearest_state(folder, header, step, [](const std::string&) {});
    return state.step == step && header.space->read_adapter(folder.adapter()) == state.values;
  } catch (const Error&) {
    return false;  // the run goes on from what is whole, and says there what is not
  }
}

/// Removes the snapshots for which `drop` holds, with the checksums beside them.
void remove_snapshots(const RunFolder& folder, const std::function<bool(const SnapshotFile&)>& drop) {
  for (const SnapshotFile& file : list_snapshots(folder.snapshots())) {
    if (!drop(file)) continue;
    std::filesystem::remove(file.path);
    std::filesystem::remove(sha256_sidecar_path(file.path));
  }
}

void warn_of_unknown_tokenizer(const RunHeader& run, const std::string& place, const Warn& warn) {
  const bool is_known = std::ranges::any_of(
      run.identity, [](const IdentityEntry& entry) { return entry.key == tokenizer_key; });
  if (is_known) return;
  warn(
      fmt::format("{}: the version that began the run did not record its tokenizer; it goes on with the one "
                  "that the model has now",
                  place));
}

/// A folder's first look at what the config asks for.
class Opening {
 public:
  Opening(const Config& config, const Inputs& inputs, const RunFolder& folder, bool overwrite,
          RunHeader& header, const Warn& warn)
      : config_(config),
        inputs_(inputs),
        folder_(folder),
        overwrite_(overwrite),
        header_(header),
        warn_(warn) {}

  RunStart start();

 private:
  RunStart go_on();
  RunStart go_on_from(const std::string& snapshot_path);
  RunStart begin_from(const Snapshot& snapshot, const std::string& snapshot_path);
  TrajectoryScan take_header();
  std::uint64_t begin(const RunState* start = nullptr);

  const Config& config_;
  const Inputs& inputs_;
  const RunFolder& folder_;
  bool overwrite_;
  RunHeader& header_;
  const Warn& warn_;
};

RunStart Opening::start() {
  const bool has_steps =
      !overwrite_ && (has_finished_steps(folder_) || !list_snapshots(folder_.snapshots()).empty());
  const ResumeFrom& from = config_.train.resume_from_checkpoint;
  switch (from.kind) {
    case ResumeFrom::Kind::automatic:
      if (has_steps) return go_on();
      break;
    case ResumeFrom::Kind::never:
      if (has_steps) {
        throw UsageError(
            "{}: holds a run's finished steps; train.resume_from_checkpoint=never needs --overwrite to "
            "replace them",
            folder_.path);
      }
      break;
    case ResumeFrom::Kind::snapshot:
      return go_on_from(from.path);
  }
  return {.resume = false, .finished = false, .step = 0, .valid_bytes = begin()};
}

/// From the last step of the run in the folder.
RunStart Opening::go_on() {
  if (!folder_.has_trajectory()) {
    throw InputError(
        "{}: holds snapshots but no trajectory, so that the run cannot go on; name a snapshot in "
        "train.resume_from_checkpoint and another train.output_dir, or give --overwrite",
        folder_.path);
  }
  const TrajectoryScan all = take_header();
  return {.resume = true, .finished = false, .step = all.end_step, .valid_bytes = all.valid_bytes};
}

/// From a snapshot, of this folder's run or of another one.
RunStart Opening::go_on_from(const std::string& snapshot_path) {
  const Snapshot snapshot = read_snapshot(snapshot_path);
  check_identity(snapshot.header, header_, snapshot_path);
  const auto own = std::filesystem::path(folder_.snapshots());
  if (std::filesystem::path(snapshot_path).parent_path() != own) {
    warn_of_unknown_tokenizer(snapshot.header, snapshot_path, warn_);
    return begin_from(snapshot, snapshot_path);
  }
  const std::uint64_t step = snapshot.state.step;
  const TrajectoryScan all = take_header();
  if (all.end_step > step && !overwrite_) {
    throw UsageError(
        "{}: has {} finished steps; going back to step {} needs --overwrite to drop the later ones",
        folder_.path, all.end_step, step);
  }
  const TrajectoryScan part = scan_trajectory(folder_.trajectory(), step);
  if (part.end_step != step) {
    throw InputError("{}: ends at step {}, before the snapshot's step {}", folder_.trajectory(),
                     part.end_step, step);
  }
  remove_snapshots(folder_, [&](const SnapshotFile& file) { return file.step > step; });
  return {.resume = true, .finished = false, .step = step, .valid_bytes = part.valid_bytes};
}

/// Another run's snapshot begins this one, which keeps a copy so that it can be replayed by itself.
RunStart Opening::begin_from(const Snapshot& snapshot, const std::string& snapshot_path) {
  if (!overwrite_ && has_finished_steps(folder_)) {
    const RunHeader there = scan_trajectory(folder_.trajectory(), 0).header;
    const bool same = there.start_step == snapshot.state.step && file_exists(folder_.start_snapshot()) &&
                      read_snapshot(folder_.start_snapshot()).state.values == snapshot.state.values;
    if (same) return go_on();  // the same command once more
    throw UsageError("{}: holds a run's finished steps; starting from {} needs --overwrite to replace them",
                     folder_.path, snapshot_path);
  }
  header_.start_step = snapshot.state.step;
  header_.start_snapshot = std::filesystem::path(folder_.start_snapshot()).filename().string();
  header_.initial_adapter = false;
  return {
      .resume = true, .finished = false, .step = snapshot.state.step, .valid_bytes = begin(&snapshot.state)};
}

/// The header of the run in the folder, which has to be the one that the config asks for.
TrajectoryScan Opening::take_header() {
  TrajectoryScan all = scan_trajectory(folder_.trajectory());
  check_identity(all.header, header_, folder_.path);
  warn_of_unknown_tokenizer(all.header, folder_.path, warn_);
  if (all.end.kind != RecordEnd::Kind::clean) warn_(all.end.reason);
  header_ = all.header;
  return all;
}

/// A fresh run, behind `start` if there is one: what an earlier one left under the same names goes, then the
/// new one's first files come, the trajectory last. Returns its length; it holds no step yet.
std::uint64_t Opening::begin(const RunState* start) {
  remove_snapshots(folder_, [](const SnapshotFile&) { return true; });
  for (const std::string& path :
       {folder_.trajectory(), folder_.metrics(), folder_.adapter(), folder_.initial_adapter(),
        folder_.start_snapshot(), sha256_sidecar_path(folder_.start_snapshot())}) {
    if (inputs_.start && path == folder_.initial_adapter())
      continue;  // it may be the very adapter to start from
    std::filesystem::remove_all(path);
  }
  write_file_atomically(folder_.config(), to_yaml(config_));
  if (inputs_.start) {
    inputs_.space->write_adapter(folder_.initial_adapter(), inputs_.files.description, inputs_.start->values,
                                 config_.model.path);
  }
  if (start != nullptr) write_snapshot(folder_.start_snapshot(), header_, *start);
  const std::string header = header_.to_json();
  return RecordWriter::create(folder_.trajectory(), std::as_bytes(std::span(header.data(), header.size())))
      .bytes();
}

}  // namespace

std::string RunStart::text() const {
  return fmt::format("{:d} {:d} {} {}", resume, finished, step, valid_bytes);
}

RunStart RunStart::from_text(const std::string& text) {
  RunStart start;
  int resume = 0;
  int finished = 0;
  if (std::sscanf(text.c_str(), "%d %d %lu %lu", &resume, &finished, &start.step, &start.valid_bytes) != 4) {
    throw CommError("rank 0 sent \"{}\" where its decision on the run's folder was expected", text);
  }
  start.resume = resume != 0;
  start.finished = finished != 0;
  return start;
}

RunStart start_run(const Config& config, const Inputs& inputs, const RunFolder& folder, bool overwrite,
                   RunHeader& header, const Warn& warn) {
  remove_temporary_files(folder.path);
  remove_temporary_files(folder.snapshots());
  RunStart start = Opening(config, inputs, folder, overwrite, header, warn).start();
  start.finished = start.resume && start.step >= static_cast<std::uint64_t>(config.train.max_steps) &&
                   is_complete(folder, header, start.step);
  return start;
}

}  // namespace mezzo
