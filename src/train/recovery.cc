#include "mezzo/train/recovery.h"

#include <fcntl.h>

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/sha256.h"
#include "mezzo/train/metrics_file.h"

namespace mezzo {

namespace {

constexpr std::uint64_t any_later_step = std::numeric_limits<std::uint64_t>::max();

/// Copies a file, durably. Not a link: what it is a copy of may still be cut.
void copy_durably(const std::string& from, const std::string& to) {
  const std::string temporary = temporary_path_for(to);
  std::error_code error;
  std::filesystem::copy_file(from, temporary, std::filesystem::copy_options::overwrite_existing, error);
  if (error) throw io_error(fmt::format("copy {} to", from), to, error.value());
  FileDescriptor::open(temporary, O_WRONLY).sync();
  rename_durably(temporary, to);
}

/// Copies the trajectory to the next trajectory.damaged-N and returns that name. An earlier start that was
/// killed behind the copy has made it already.
std::string set_aside(const RunFolder& folder) {
  int number = 1;
  while (file_exists(folder.damaged_trajectory(number))) ++number;
  const std::string last = folder.damaged_trajectory(number - 1);
  if (number > 1 && file_size(last) == file_size(folder.trajectory()) &&
      sha256_of_file(last) == sha256_of_file(folder.trajectory()))
    return last;
  copy_durably(folder.trajectory(), folder.damaged_trajectory(number));
  return folder.damaged_trajectory(number);
}

/// A trajectory under a temporary name; rename_durably() puts it in place.
RecordWriter create_trajectory(const std::string& temporary, const RunHeader& header) {
  remove_file(temporary);
  return RecordWriter::create(temporary, bytes_of(header.to_json()));
}

/// Appends the good records of the steps from `step` on, which lie behind damage; returns the step behind
/// them.
std::uint64_t append_records_behind(RecordWriter& writer, const std::string& damaged, const RunHeader& header,
                                    std::uint64_t step) {
  RecordReader reader(damaged);
  do {
    while (const auto payload = reader.next()) {
      const StepRecord record = decode(*payload, header.records, damaged);
      if (record.step < step) continue;
      if (record.step > step) return step;
      writer.append(*payload);
      ++step;
    }
  } while (reader.skip_damage());
  return step;
}

}  // namespace

RunContent examine_run(const RunFolder& folder, const Warn& warn) {
  using Trajectory = RunContent::Trajectory;
  try {
    TrajectoryScan scan = scan_trajectory(folder.trajectory());
    RunContent content{.header = std::move(scan.header),
                       .step = scan.end_step,
                       .valid_bytes = scan.valid_bytes,
                       .snapshot = std::nullopt,
                       .damage = std::move(scan.end.reason)};
    if (scan.end.kind != RecordEnd::Kind::corrupt) return content;
    content.trajectory = Trajectory::damaged;
    if (auto snapshot =
            newest_good_snapshot(folder, &content.header, content.step + 1, any_later_step, warn)) {
      content.step = snapshot->state.step;
      content.valid_bytes = 0;
      content.snapshot = std::move(snapshot->state);
    }
    return content;
  } catch (const DamagedHeader& error) {
    auto snapshot = newest_good_snapshot(folder, nullptr, 1, any_later_step, warn);
    if (!snapshot) throw InputError("{}; no snapshot in {} is good", error.what(), folder.snapshots());
    const std::uint64_t step = snapshot->state.step;
    return {.header = std::move(snapshot->header),
            .step = step,
            .valid_bytes = 0,
            .snapshot = std::move(snapshot->state),
            .trajectory = Trajectory::useless,
            .damage = error.what()};
  }
}

std::optional<BestStep> best_of_run(const RunFolder& folder, std::uint64_t steps, const Warn& warn) {
  if (!file_exists(folder.config())) return std::nullopt;
  Config config;
  try {
    config = load_config(folder.config(), {}, ConfigUse::inspect);
  } catch (const UsageError& error) {
    warn(fmt::format("whether the run's best step is its result is not known: {}", error.what()));
    return std::nullopt;
  }
  // A config without the key is of a version that took the last step.
  if (!config.written.contains("train.load_best_model_at_end") || !takes_best(config)) return std::nullopt;
  BestStep best = best_of(read_evaluations(folder.metrics(), steps), config.train.metric_for_best_model);
  return best.best() ? std::optional(std::move(best)) : std::nullopt;
}

RunContent repair_trajectory(const RunFolder& folder, const RunContent& content, const Warn& warn) {
  using Trajectory = RunContent::Trajectory;
  if (content.trajectory == Trajectory::good) return content;
  RunContent repaired = content;
  const std::string damaged = set_aside(folder);
  if (!content.snapshot) {
    // The writer that goes on cuts the file behind its good records.
    warn(fmt::format(
        "{}; no snapshot behind it is good: the run goes on from step {}; {} keeps the damaged file",
        content.damage, content.step, damaged));
  } else {
    const std::uint64_t start = content.step;
    repaired.header.start_step = start;
    repaired.header.start_snapshot = std::filesystem::path(folder.start_snapshot(start)).filename().string();
    repaired.header.initial_adapter = false;
    write_snapshot(folder.start_snapshot(start), repaired.header, *content.snapshot);
    const std::string temporary = temporary_path_for(folder.trajectory());
    RecordWriter writer = create_trajectory(temporary, repaired.header);
    if (content.trajectory == Trajectory::damaged)
      repaired.step = append_records_behind(writer, damaged, content.header, start);
    writer.sync();
    rename_durably(temporary, folder.trajectory());
    repaired.valid_bytes = writer.bytes();
    repaired.snapshot.reset();
    warn(fmt::format(
        "{}; the trajectory begins anew at the snapshot of step {} and holds the good records behind "
        "it, up to step {}; {} keeps the damaged file",
        content.damage, start, repaired.step, damaged));
  }
  repaired.trajectory = Trajectory::good;
  repaired.damage.clear();
  return repaired;
}

std::uint64_t begin_trajectory(const RunFolder& folder, const RunHeader& header) {
  const std::string temporary = temporary_path_for(folder.trajectory());
  const RecordWriter writer = create_trajectory(temporary, header);
  rename_durably(temporary, folder.trajectory());
  return writer.bytes();
}

}  // namespace mezzo
