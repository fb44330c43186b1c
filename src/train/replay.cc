#include "mezzo/train/replay.h"

#include <unistd.h>

#include <utility>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"
#include "mezzo/core/limits.h"
#include "mezzo/model/model_files.h"

namespace mezzo {

namespace {

/// Bytes of this machine.
std::uint64_t physical_memory() {
  return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

/// The weights that a run began with are those of its base model.
void check_base(const RunHeader& header) {
  const std::string hash = ModelFiles(header.base_model).hash(static_cast<int>(allowed_processors().size()));
  if (hash == header.base_hash) return;
  throw InputError("{}: is not the model that the run began with: its hash is {}, expected {}",
                   header.base_model, hash, header.base_hash);
}

}  // namespace

TrajectoryScan scan_trajectory(const std::string& path, std::optional<std::uint64_t> last_step) {
  RecordReader reader(path);
  const std::string text(reinterpret_cast<const char*>(reader.header().data()), reader.header().size());
  TrajectoryScan scan{.header = RunHeader::from_json(text, path), .end_step = 0, .valid_bytes = 0, .end = {}};
  scan.end_step = scan.header.start_step;
  scan.valid_bytes = reader.position();
  while (!last_step || scan.end_step < *last_step) {
    const auto payload = reader.next();
    if (!payload) {
      scan.end = reader.end();
      break;
    }
    const StepRecord record = decode(*payload, scan.header.records, path);
    if (record.step != scan.end_step) {
      throw InputError("{}: a record of step {} where step {} is expected", path, record.step, scan.end_step);
    }
    ++scan.end_step;
    scan.valid_bytes = reader.position();
  }
  return scan;
}

RunState start_state(const RunFolder& folder, const RunHeader& header) {
  if (header.start_step > 0) {
    const std::string path = folder.path + "/" + header.start_snapshot;
    return read_own_snapshot(path, &header, header.start_step).state;
  }
  const auto elements = static_cast<std::uint64_t>(element_count(header.trainables()));
  if (const std::uint64_t memory = physical_memory(); elements > memory / sizeof(float)) {
    throw InputError(
        "{}: the run's header names trainables of {} elements, more than this machine's {} bytes of memory "
        "hold",
        folder.path, elements, memory);
  }
  if (!header.space->has_adapter()) check_base(header);
  std::vector<float> values = header.initial_adapter
                                  ? header.space->read_adapter(folder.initial_adapter())
                                  : header.space->initial_values(header.seed, header.base_model);
  const std::string hash = "sha256:" + trainables_sha256(values);
  for (const IdentityEntry& entry : header.identity) {
    if (!header.initial_adapter || entry.key != "lora.adapter" || entry.value == hash) continue;
    throw InputError("{}: is not the adapter that the run began from: it has {}, expected {}",
                     folder.initial_adapter(), hash, entry.value);
  }
  return {.step = 0,
          .values = std::move(values),
          .optimizer = std::vector<float>(static_cast<std::size_t>(element_count(header.optimizer_state()))),
          .estimator = std::vector<double>(static_cast<std::size_t>(header.records.estimator))};
}

TrainedState load_state(Backend& backend, const RunHeader& header, const RunState& state) {
  return {
      .trainables = make_trainables(backend, header.trainables(), state.values, header.optimizer->master()),
      .optimizer = make_trainables(backend, header.optimizer_state(), state.optimizer),
      .estimator = state.estimator};
}

RunState read_state(Backend& backend, const TrainedState& state, std::uint64_t step) {
  return {.step = step,
          .values = read_values(backend, state.trainables),
          .optimizer = read_values(backend, state.optimizer),
          .estimator = state.estimator};
}

void replay_records(const std::string& trajectory, const RunHeader& header, std::uint64_t first_step,
                    std::uint64_t last_step, Backend& backend, TrainedState& state) {
  if (first_step >= last_step) return;
  RecordReader reader(trajectory);
  while (first_step < last_step) {
    const auto payload = reader.next();
    if (!payload) throw InputError("{}: ends before step {}: {}", trajectory, last_step, reader.end().reason);
    const StepRecord record = decode(*payload, header.records, trajectory);
    if (record.step < first_step) continue;
    if (record.step != first_step) {
      throw InputError("{}: a record of step {} where step {} is expected", trajectory, record.step,
                       first_step);
    }
    header.optimizer->apply(record, header.run_noise(), backend, state.trainables, state.optimizer);
    state.estimator = record.estimator;
    ++first_step;
  }
}

RunState replayed(const std::string& trajectory, const RunHeader& header, const RunState& from,
                  std::uint64_t last_step) {
  const std::unique_ptr<Backend> backend = make_backend({});
  TrainedState state = load_state(*backend, header, from);
  replay_records(trajectory, header, from.step, last_step, *backend, state);
  return read_state(*backend, state, last_step);
}

std::optional<Snapshot> newest_good_snapshot(const RunFolder& folder, const RunHeader* header,
                                             std::uint64_t first_step, std::uint64_t last_step,
                                             const Warn& warn) {
  for (const SnapshotFile& file : list_snapshots(folder.snapshots())) {
    if (file.step > last_step) continue;
    if (file.step < first_step) break;
    try {
      return read_own_snapshot(file.path, header, file.step);
    } catch (const Error& error) {
      warn(fmt::format("a snapshot is passed over: {}", error.what()));
    }
  }
  return std::nullopt;
}

RunState nearest_state(const RunFolder& folder, const RunHeader& header, std::uint64_t step,
                       const Warn& warn) {
  auto snapshot = newest_good_snapshot(folder, &header, 0, step, warn);
  return snapshot ? std::move(snapshot->state) : start_state(folder, header);
}

RunState state_after(const RunFolder& folder, const RunHeader& header, std::uint64_t step, const Warn& warn) {
  RunState state = nearest_state(folder, header, step, warn);
  if (state.step > step) {
    throw InputError("{}: begins at step {}, and no good snapshot is of step {}", folder.trajectory(),
                     state.step, step);
  }
  return state.step == step ? std::move(state) : replayed(folder.trajectory(), header, state, step);
}

}  // namespace mezzo
