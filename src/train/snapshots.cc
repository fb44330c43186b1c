#include "mezzo/train/snapshots.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string_view>

#include "mezzo/core/error.h"
#include "mezzo/io/checksummed_file.h"
#include "mezzo/io/files.h"
#include "mezzo/io/hdf5_file.h"

namespace mezzo {

namespace {

constexpr std::uint64_t snapshot_version = 1;
constexpr std::string_view snapshot_prefix = "step-";
constexpr std::string_view snapshot_suffix = ".h5";

/// The values of all `specs`, one array each.
void write_group(Hdf5Writer& writer, const std::string& group, std::span<const TrainableSpec> specs,
                 std::span<const float> values) {
  if (element_count(specs) != static_cast<std::int64_t>(values.size())) {
    throw Error("{} values were to be written into {}, which has {}", values.size(), group,
                element_count(specs));
  }
  writer.create_group(group);
  std::size_t offset = 0;
  for (const TrainableSpec& spec : specs) {
    const std::int64_t shape[] = {spec.rows, spec.cols};
    const auto count = static_cast<std::size_t>(spec.count());
    writer.write_array(group + "/" + spec.name, DType::f32, shape,
                       std::as_bytes(values.subspan(offset, count)));
    offset += count;
  }
}

/// And back: exactly these arrays.
std::vector<float> read_group(const Hdf5Reader& reader, const std::string& path, const std::string& group,
                              std::span<const TrainableSpec> specs) {
  const std::vector<std::string> names = reader.array_names(group);
  if (!std::ranges::equal(names, specs, {}, {}, &TrainableSpec::name)) {
    throw InputError("{}: the arrays in {} are not those that the run's header names", path, group);
  }
  std::vector<float> values(static_cast<std::size_t>(element_count(specs)));
  std::size_t offset = 0;
  for (const TrainableSpec& spec : specs) {
    const std::int64_t shape[] = {spec.rows, spec.cols};
    const auto count = static_cast<std::size_t>(spec.count());
    reader.read_array(group + "/" + spec.name, DType::f32, shape,
                      std::as_writable_bytes(std::span(values).subspan(offset, count)));
    offset += count;
  }
  return values;
}

/// What an estimator keeps, `count` numbers; without any the file has no such group.
std::vector<double> read_estimator(const Hdf5Reader& reader, const std::string& path, std::int64_t count) {
  if (count == 0) return {};
  if (static_cast<std::uint64_t>(count) * sizeof(double) > file_size(path)) {
    throw InputError(
        "{}: the run's header names {} numbers of the estimator, which the file is too small to hold", path,
        count);
  }
  const std::int64_t shape[] = {count};
  std::vector<double> values(static_cast<std::size_t>(count));
  reader.read_array("/estimator/state", DType::f64, shape, std::as_writable_bytes(std::span(values)));
  for (const double value : values) {
    if (!std::isfinite(value) || value < 0.0)
      throw InputError("{}: /estimator/state holds {}, expected finite numbers >= 0", path, value);
  }
  return values;
}

/// The files of a folder whose names carry a step, newest first.
std::vector<SnapshotFile> files_with_step(const std::string& directory, const std::string& ending) {
  std::vector<SnapshotFile> files;
  for (const std::string& name : list_folder(directory)) {
    if (const auto step = number_in_name(name, snapshot_prefix, std::string(snapshot_suffix) + ending))
      files.push_back({*step, (std::filesystem::path(directory) / name).string()});
  }
  std::ranges::sort(files, std::ranges::greater{}, &SnapshotFile::step);
  return files;
}

}  // namespace

void write_snapshot(const std::string& path, const RunHeader& header, const RunState& state) {
  Hdf5Writer writer(path);
  write_group(writer, "/trainables", header.trainables(), state.values);
  write_group(writer, "/optimizer", header.optimizer_state(), state.optimizer);
  if (header.records.estimator > 0) {
    const std::int64_t shape[] = {std::ssize(state.estimator)};
    if (shape[0] != header.records.estimator) {
      throw Error("{} numbers were to be written into /estimator, which has {}", shape[0],
                  header.records.estimator);
    }
    writer.write_array("/estimator/state", DType::f64, shape, std::as_bytes(std::span(state.estimator)));
  }
  writer.write_attribute("/meta", "version", snapshot_version);
  writer.write_attribute("/meta", "step", state.step);
  writer.write_attribute("/meta", std::string(header.space->kind()), header.space->constants().dump());
  writer.write_attribute("/meta", "base_model_path", header.base_model);
  writer.write_attribute("/meta", "base_model_hash", header.base_hash);
  writer.write_attribute("/meta", "run", header.to_json());
  writer.commit();
}

Snapshot read_snapshot(const std::string& path) {
  const Hdf5Reader reader(path);
  if (const std::uint64_t version = reader.read_u64("/meta", "version"); version != snapshot_version) {
    throw InputError("{}: the snapshot has version {}, expected {}", path, version, snapshot_version);
  }
  Snapshot snapshot{.header = RunHeader::from_json(reader.read_string("/meta", "run"), path), .state = {}};
  RunState& state = snapshot.state;
  state.step = reader.read_u64("/meta", "step");
  if (state.step < snapshot.header.start_step || state.step > most_steps) {
    throw InputError("{}: the snapshot is of step {}, expected {} to {}", path, state.step,
                     snapshot.header.start_step, most_steps);
  }
  // Before memory is taken: what a header asks for may be anything.
  const std::vector<TrainableSpec> kept = snapshot.header.optimizer_state();
  const auto elements =
      static_cast<std::uint64_t>(element_count(snapshot.header.trainables()) + element_count(kept));
  if (elements * sizeof(float) > file_size(path)) {
    throw InputError(
        "{}: the run's header names trainables of {} elements, which the file is too small to hold", path,
        elements);
  }
  state.values = read_group(reader, path, "/trainables", snapshot.header.trainables());
  state.optimizer = read_group(reader, path, "/optimizer", kept);
  state.estimator = read_estimator(reader, path, snapshot.header.records.estimator);
  return snapshot;
}

Snapshot read_own_snapshot(const std::string& path, const RunHeader* header, std::uint64_t step) {
  Snapshot snapshot = read_snapshot(path);
  if (header != nullptr) {
    check_identity(*header, snapshot.header, path);
    if (snapshot.header.trainables() != header->trainables() ||
        snapshot.header.optimizer_state() != header->optimizer_state() ||
        snapshot.header.records.estimator != header->records.estimator)
      throw InputError("{}: the snapshot's tensors are not those of the run", path);
  }
  if (snapshot.state.step != step)
    throw InputError("{}: holds step {}, expected step {}", path, snapshot.state.step, step);
  return snapshot;
}

// ---- their files ----------------------------------------------------------------------------------------

std::string snapshot_name(std::uint64_t step) {
  return fmt::format("{}{}{}", snapshot_prefix, step, snapshot_suffix);
}

std::vector<SnapshotFile> list_snapshots(const std::string& directory) {
  return files_with_step(directory, "");
}

void remove_snapshots(const std::string& directory, std::optional<std::uint64_t> step) {
  for (const SnapshotFile& file : list_snapshots(directory)) {
    if (step && file.step <= *step) continue;
    remove_file(file.path);
    remove_file(sha256_sidecar_path(file.path));
  }
}

std::vector<std::string> prune_snapshots(const std::string& directory, std::size_t limit,
                                         std::uint64_t newest_good_step, std::optional<std::uint64_t> best) {
  std::vector<std::string> removed;
  std::set<std::uint64_t> left;
  std::size_t kept = 0;
  for (const SnapshotFile& snapshot : list_snapshots(directory)) {
    if (snapshot.step > newest_good_step || kept < std::max<std::size_t>(limit, 1)) {
      left.insert(snapshot.step);
      if (snapshot.step <= newest_good_step) ++kept;
      continue;
    }
    if (snapshot.step == best) {
      left.insert(snapshot.step);
      continue;
    }
    // The file first: a sidecar without a file is recognised, a file without a sidecar would be called
    // damaged.
    remove_file(snapshot.path);
    removed.push_back(snapshot.path);
  }
  bool changed = !removed.empty();
  for (const SnapshotFile& sidecar : files_with_step(directory, sha256_sidecar_path(""))) {
    if (left.contains(sidecar.step)) continue;
    remove_file(sidecar.path);
    changed = true;
  }
  if (changed) sync_directory(directory);
  return removed;
}

}  // namespace mezzo
