#include "mezzo/train/replay.h"

#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/hdf5_file.h"

namespace mezzo {

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
    const StepRecord record = decode(*payload, scan.header.directions, path.c_str());
    if (record.step != scan.end_step) {
      throw InputError("{}: a record of step {} where step {} is expected", path, record.step, scan.end_step);
    }
    ++scan.end_step;
    scan.valid_bytes = reader.position();
  }
  return scan;
}

RunState start_state(const RunFolder& folder, const RunHeader& header) {
  if (header.start_step > 0) return read_snapshot(folder.start_snapshot()).state;
  if (header.initial_adapter) {
    Adapter adapter = read_adapter(folder.initial_adapter());
    if (adapter.specs != header.trainables) {
      throw InputError("{}: the adapter's tensors are not those of the run in {}", folder.initial_adapter(),
                       folder.path);
    }
    return {.step = 0, .values = std::move(adapter.values)};
  }
  return {.step = 0, .values = initial_values(header.trainables, header.seed)};
}

void replay_records(const std::string& trajectory, const RunHeader& header, std::uint64_t first_step,
                    std::uint64_t last_step, Backend& backend, Trainables& trainables) {
  if (first_step >= last_step) return;
  RecordReader reader(trajectory);
  while (first_step < last_step) {
    const auto payload = reader.next();
    if (!payload) throw InputError("{}: ends before step {}: {}", trajectory, last_step, reader.end().reason);
    const StepRecord record = decode(*payload, header.directions, trajectory.c_str());
    if (record.step < first_step) continue;
    if (record.step != first_step) {
      throw InputError("{}: a record of step {} where step {} is expected", trajectory, record.step,
                       first_step);
    }
    backend.update(trainables, update_of(record, header.seed, header.weight_decay), header.noise);
    ++first_step;
  }
}

RunState nearest_state(const RunFolder& folder, const RunHeader& header, std::uint64_t step,
                       const Warn& warn) {
  for (const SnapshotFile& file : list_snapshots(folder.snapshots())) {
    if (file.step > step) continue;
    try {
      Snapshot snapshot = read_snapshot(file.path);
      check_identity(header, snapshot.header, file.path);
      if (snapshot.state.step != file.step) {
        throw InputError("{}: holds step {}, unlike its name", file.path, snapshot.state.step);
      }
      return std::move(snapshot.state);
    } catch (const Error& error) {
      warn(fmt::format("a snapshot is passed over: {}", error.what()));
    }
  }
  return start_state(folder, header);
}

}  // namespace mezzo
