#include "mezzo/train/start.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/checksummed_file.h"
#include "mezzo/io/files.h"
#include "mezzo/train/best_step.h"
#include "mezzo/train/metrics_file.h"
#include "mezzo/train/recovery.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

namespace {

/// Whether a trajectory holds a finished step, begins behind one, or is damaged before the first that can be
/// read. Reads one record at most.
bool has_finished_steps(const RunFolder& folder) {
  if (!folder.has_trajectory()) return false;
  try {
    const TrajectoryScan scan = scan_trajectory(folder.trajectory(), 1);
    return scan.end_step > 0 || scan.end.kind == RecordEnd::Kind::corrupt;
  } catch (const DamagedHeader&) {
    return true;
  }
}

/// How far a run without a finished step has come in a folder.
RunProgress progress_of(const RunFolder& folder) {
  if (folder.has_trajectory()) return RunProgress::started;
  return file_exists(folder.starting()) ? RunProgress::starting : RunProgress::none;
}

/// The snapshot of a folder that `path` is, under whatever name; nothing where it is none.
std::optional<SnapshotFile> own_snapshot(const RunFolder& folder, const std::string& path) {
  for (const SnapshotFile& file : list_snapshots(folder.snapshots())) {
    std::error_code error;
    if (std::filesystem::equivalent(file.path, path, error) && !error) return file;
  }
  return std::nullopt;
}

/// Whether a folder has what the end of a run at `step` leaves, undamaged: that step's snapshot, and the
/// adapter with that of the best step where there is one.
bool is_complete(const RunFolder& folder, const RunHeader& header, std::uint64_t step,
                 std::optional<std::uint64_t> best) {
  try {
    const auto state_of = [&](std::uint64_t of) {
      RunState state = nearest_state(folder, header, of, [](const std::string&) {});
      if (state.step != of) throw InputError("{}: no state of step {}", folder.path, of);
      return state;
    };
    RunState result = state_of(step);
    if (best && *best != step) result = state_of(*best);
    const ParameterSpace& space = *header.space;
    const std::string left = result_of(folder, space);
    if (best && read_trainer_step(left) != best) return false;
    return (space.has_adapter() ? space.read_adapter(left) : space.initial_values(header.seed, left)) ==
           result.values;
  } catch (const Error&) {
    return false;  // the run goes on from what is whole, and says there what is not
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
  RunContent take_content();
  std::uint64_t begin(const RunState* start = nullptr, bool copied = false);

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
  const RunContent content = repair_trajectory(folder_, take_content(), warn_);
  header_ = content.header;
  return {.resume = true, .finished = false, .step = content.step, .valid_bytes = content.valid_bytes};
}

/// From a snapshot, of this folder's run or of another one.
RunStart Opening::go_on_from(const std::string& snapshot_path) {
  const std::optional<SnapshotFile> own = own_snapshot(folder_, snapshot_path);
  // Under its own name: a link to a snapshot has no checksum beside it.
  Snapshot snapshot = read_snapshot(own ? own->path : snapshot_path);
  check_identity(snapshot.header, header_, snapshot_path);
  if (!own) {
    warn_of_unknown_tokenizer(snapshot.header, snapshot_path, warn_);
    return begin_from(snapshot, snapshot_path);
  }
  const std::uint64_t step = snapshot.state.step;
  RunContent content = take_content();
  if (content.step > step && !overwrite_) {
    throw UsageError(
        "{}: has {} finished steps; going back to step {} needs --overwrite to drop the later ones",
        folder_.path, content.step, step);
  }
  using Trajectory = RunContent::Trajectory;
  std::optional<TrajectoryScan> part;
  if (content.trajectory != Trajectory::useless) part = scan_trajectory(folder_.trajectory(), step);
  if (part && part->end_step == step) {
    content.valid_bytes = part->valid_bytes;
  } else if (content.trajectory != Trajectory::good) {
    content.step = step;
    content.snapshot = std::move(snapshot.state);
    content = repair_trajectory(folder_, content, warn_);
  } else {
    throw InputError("{}: ends at step {}, before the snapshot's step {}", folder_.trajectory(), content.step,
                     step);
  }
  remove_snapshots(folder_.snapshots(), step);
  header_ = content.header;
  return {.resume = true, .finished = false, .step = step, .valid_bytes = content.valid_bytes};
}

/// Another run's snapshot begins this one, which keeps a copy so that it can be replayed by itself.
RunStart Opening::begin_from(const Snapshot& snapshot, const std::string& snapshot_path) {
  if (!overwrite_ && has_finished_steps(folder_)) {
    const auto began_here = [&] {
      if (!file_exists(folder_.start_snapshot())) return false;
      const RunState start = read_snapshot(folder_.start_snapshot()).state;
      return start.step == snapshot.state.step && start.values == snapshot.state.values;
    };
    if (began_here()) return go_on();  // the same command once more
    throw UsageError("{}: holds a run's finished steps; starting from {} needs --overwrite to replace them",
                     folder_.path, snapshot_path);
  }
  header_.start_step = snapshot.state.step;
  header_.start_snapshot = std::filesystem::path(folder_.start_snapshot()).filename().string();
  header_.initial_adapter = false;
  std::error_code error;
  const bool copied = std::filesystem::equivalent(snapshot_path, folder_.start_snapshot(), error) && !error;
  return {.resume = true,
          .finished = false,
          .step = snapshot.state.step,
          .valid_bytes = begin(&snapshot.state, copied)};
}

/// What the folder holds of the run that the config asks for; UsageError when it is another one.
RunContent Opening::take_content() {
  if (!folder_.has_trajectory()) {
    throw InputError(
        "{}: holds snapshots but no trajectory, so that the run cannot go on; name a snapshot in "
        "train.resume_from_checkpoint and another train.output_dir, or give --overwrite",
        folder_.path);
  }
  RunContent content = examine_run(folder_, warn_);
  check_identity(content.header, header_, folder_.path);
  warn_of_unknown_tokenizer(content.header, folder_.path, warn_);
  if (content.trajectory == RunContent::Trajectory::good && !content.damage.empty()) warn_(content.damage);
  return content;
}

/// A fresh run, behind `start` if there is one (`copied`: start.h5 holds it already). Its first files are
/// written before anything of an earlier run goes, for they may come from there; the trajectory is the last
/// of them, and the commit. Returns its length; it holds no step yet.
std::uint64_t Opening::begin(const RunState* start, bool copied) {
  if (!overwrite_) {
    if (const auto foreign = find_foreign(folder_, progress_of(folder_))) {
      throw UsageError(
          "{}: is not of this run, which has no trajectory with a finished step in {}; take another "
          "train.output_dir, or give --overwrite to replace a run's files there",
          *foreign, folder_.path);
    }
  }
  write_file_atomically(folder_.starting(), std::string_view("a run is being started\n"));
  write_file_atomically(folder_.config(), to_yaml(config_));
  if (inputs_.start) {
    // Of a link only the link goes: where it leads to belongs to somebody else.
    if (std::filesystem::is_symlink(folder_.initial_adapter())) remove_file(folder_.initial_adapter());
    inputs_.space->write_adapter(folder_.initial_adapter(), inputs_.files.description, inputs_.start->values,
                                 config_.model.path);
  }
  if (start != nullptr && !copied) write_snapshot(folder_.start_snapshot(), header_, *start);
  remove_run(folder_, [&](const std::string& path) {
    const bool started_from =
        path == folder_.start_snapshot() || path == sha256_sidecar_path(folder_.start_snapshot());
    return (inputs_.start && path == folder_.initial_adapter()) || (start != nullptr && started_from);
  });
  const std::uint64_t bytes = begin_trajectory(folder_, header_);
  remove_file(folder_.starting());
  return bytes;
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
  if (file_exists(folder.snapshots())) remove_temporary_files(folder.snapshots());
  RunStart start = Opening(config, inputs, folder, overwrite, header, warn).start();
  create_directories(folder.snapshots());
  if (!start.resume) return start;
  const BestStep best =
      best_of(read_evaluations(folder.metrics(), start.step), config.train.metric_for_best_model);
  std::optional<std::uint64_t> best_step;
  if (takes_best(config) && best.best()) best_step = best.best()->steps_done;
  const bool ended = start.step >= static_cast<std::uint64_t>(config.train.max_steps) ||
                     best.is_spent(config.train.early_stopping_patience);
  start.finished = ended && is_complete(folder, header, start.step, best_step);
  return start;
}

}  // namespace mezzo
