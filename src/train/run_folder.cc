#include "mezzo/train/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/data/reward.h"
#include "mezzo/io/checksummed_file.h"
#include "mezzo/io/files.h"
#include "mezzo/model/merged.h"
#include "mezzo/train/snapshots.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

namespace {

constexpr std::string_view adapter_files[] = {"adapter_config.json", "adapter_model.safetensors",
                                              "trainer_state.json"};

bool is_start_snapshot(std::string_view name) {
  return name == "start.h5" || name == "start.h5.sha256" || number_in_name(name, "start-", ".h5") ||
         number_in_name(name, "start-", ".h5.sha256");
}

bool is_damaged_trajectory(std::string_view name) {
  return number_in_name(name, "trajectory.damaged-", "").has_value();
}

bool is_link(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_symlink(path, error);
}

bool is_folder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

/// Removes what a run has in a folder, and the folder unless something else is in it. Of a link only the link
/// goes. A missing one is no error.
void remove_folder(const std::string& path, const std::function<void()>& remove_files) {
  if (is_link(path) || !is_folder(path)) {
    remove_file(path);
    return;
  }
  remove_temporary_files(path);
  remove_files();
  if (list_folder(path).empty()) std::filesystem::remove(path);
}

void remove_adapter(const std::string& path) {
  remove_folder(path, [&] {
    for (const std::string_view name : adapter_files) remove_file(fmt::format("{}/{}", path, name));
  });
}

void remove_trained_model(const std::string& path) {
  remove_folder(path, [&] {
    remove_model(path);
    remove_trainer_state(path);
  });
}

}  // namespace

bool RunFolder::has_trajectory() const { return file_exists(trajectory()) && file_size(trajectory()) > 0; }

std::string RunFolder::damaged_trajectory(int number) const {
  return fmt::format("{}.damaged-{}", trajectory(), number);
}

std::string RunFolder::snapshot(std::uint64_t step) const { return snapshots() + "/" + snapshot_name(step); }

std::string RunFolder::start_snapshot(std::uint64_t step) const {
  return fmt::format("{}/start-{}.h5", path, step);
}

std::optional<std::string> find_foreign(const RunFolder& folder, RunProgress progress) {
  for (const std::string& directory : {folder.path, folder.snapshots(), folder.initial_adapter()}) {
    if (is_folder(directory)) remove_temporary_files(directory);
  }
  const auto within = [](const std::string& directory, auto is_own) -> std::optional<std::string> {
    if (!is_folder(directory)) return directory;
    for (const std::string& name : list_folder(directory)) {
      if (!is_own(name)) return directory + "/" + name;
    }
    return std::nullopt;
  };
  for (const std::string& name : list_folder(folder.path)) {
    const std::string path = folder.path + "/" + name;
    std::optional<std::string> foreign;
    if (name == ".lock" || name == ".starting" || (is_grader_log(name) && !is_folder(path))) {
      continue;
    } else if (name == "snapshots") {
      foreign = within(path, [&](const std::string& file) {
        return progress == RunProgress::started && number_in_name(file, "step-", ".h5.sha256").has_value();
      });
    } else if (progress != RunProgress::none && name == "initial_adapter" && !is_link(path)) {
      foreign = within(path, [](const std::string& file) {
        return std::ranges::find(adapter_files, file) != std::ranges::end(adapter_files);
      });
    } else {
      const bool first = name == "config.yaml" || is_start_snapshot(name);
      const bool later = name == "trajectory" || name == "metrics.jsonl" || is_damaged_trajectory(name);
      const bool own =
          (progress != RunProgress::none && first) || (progress == RunProgress::started && later);
      if (!own || is_folder(path)) foreign = path;
    }
    if (foreign) return foreign;
  }
  return std::nullopt;
}

void remove_run(const RunFolder& folder, const std::function<bool(const std::string&)>& keep) {
  remove_snapshots(folder.snapshots());
  for (const std::string& name : list_folder(folder.path)) {
    const std::string path = folder.path + "/" + name;
    if (keep(path)) continue;
    if (name == "adapter" || name == "initial_adapter") remove_adapter(path);
    else if (name == "model") remove_trained_model(path);
    else if (name == "metrics.jsonl" || is_start_snapshot(name) || is_damaged_trajectory(name) ||
             is_grader_log(name))
      remove_file(path);
  }
  sync_directory(folder.path);
}

}  // namespace mezzo
