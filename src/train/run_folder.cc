#include "mezzo/train/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/hdf5_file.h"
#include "mezzo/train/snapshots.h"

namespace mezzo {

namespace {

constexpr std::string_view adapter_files[] = {"adapter_config.json", "adapter_model.safetensors"};

/// Names of what is in a folder, sorted; none of a missing one.
std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  if (!file_exists(directory)) return names;
  try {
    for (const auto& entry : std::filesystem::directory_iterator(directory))
      names.push_back(entry.path().filename().string());
  } catch (const std::filesystem::filesystem_error& error) {
    throw io_error("list the folder", directory, error.code().value());
  }
  std::ranges::sort(names);
  return names;
}

/// Whether `name` is `prefix`, a number as it is written, and `suffix`.
bool is_numbered(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) || !name.ends_with(suffix))
    return false;
  const std::string_view digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && end == digits.data() + digits.size() && digits == std::to_string(number);
}

bool is_start_snapshot(std::string_view name) {
  return name == "start.h5" || name == "start.h5.sha256" || is_numbered(name, "start-", ".h5") ||
         is_numbered(name, "start-", ".h5.sha256");
}

bool is_damaged_trajectory(std::string_view name) { return is_numbered(name, "trajectory.damaged-", ""); }

bool is_link(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_symlink(path, error);
}

bool is_folder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
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
    for (const std::string& name : names_in(directory)) {
      if (!is_own(name)) return directory + "/" + name;
    }
    return std::nullopt;
  };
  for (const std::string& name : names_in(folder.path)) {
    const std::string path = folder.path + "/" + name;
    std::optional<std::string> foreign;
    if (name == ".lock" || name == ".starting") {
      continue;
    } else if (name == "snapshots") {
      foreign = within(path, [&](const std::string& file) {
        return progress == RunProgress::started && is_numbered(file, "step-", ".h5.sha256");
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

void remove_adapter(const std::string& path) {
  if (is_link(path) || !is_folder(path)) {
    remove_file(path);
    return;
  }
  remove_temporary_files(path);
  for (const std::string_view name : adapter_files) remove_file(fmt::format("{}/{}", path, name));
  if (names_in(path).empty()) std::filesystem::remove(path);
}

void remove_run(const RunFolder& folder, const std::function<bool(const std::string&)>& keep) {
  for (const SnapshotFile& file : list_snapshots(folder.snapshots())) {
    remove_file(file.path);
    remove_file(sha256_sidecar_path(file.path));
  }
  for (const std::string& name : names_in(folder.path)) {
    const std::string path = folder.path + "/" + name;
    if (keep(path)) continue;
    if (name == "adapter" || name == "initial_adapter") remove_adapter(path);
    else if (name == "metrics.jsonl" || is_start_snapshot(name) || is_damaged_trajectory(name))
      remove_file(path);
  }
  sync_directory(folder.path);
}

}  // namespace mezzo
