#include "mezzo/cli/common.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/core/hub_cache.h"
#include "mezzo/core/limits.h"
#include "mezzo/core/printable.h"
#include "mezzo/io/files.h"
#include "mezzo/train/recovery.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

namespace {

AdapterSource source_of(Adapter adapter, const std::string& directory) {
  return {.kind = "adapter",
          .space = space_of(adapter),
          .base_model = adapter.base_model,
          .state = {.step = 0, .values = std::move(adapter.values)},
          .run = std::nullopt,
          .step = read_trainer_step(directory)};
}

}  // namespace

AdapterSource AdapterSource::from_adapter(const std::string& directory) {
  return source_of(read_adapter(directory), directory);
}

AdapterSource AdapterSource::from_adapter(const std::string& directory, const Description& description) {
  return source_of(read_adapter(directory, description), directory);
}

AdapterSource AdapterSource::from_snapshot(const std::string& file) {
  Snapshot snapshot = read_snapshot(file);
  const std::uint64_t step = snapshot.state.step;
  return {.kind = "snapshot",
          .space = snapshot.header.space,
          .base_model = snapshot.header.base_model,
          .state = std::move(snapshot.state),
          .run = std::move(snapshot.header),
          .step = step};
}

AdapterSource AdapterSource::from_run(const std::string& directory, OfRun which, Logger& log) {
  const RunFolder folder{directory};
  const Warn warn = warn_to(log);
  RunContent content = examine_run(folder, warn);
  if (!content.damage.empty()) warn(content.damage);
  std::optional<BestStep> best = best_of_run(folder, content.step, warn);
  const bool takes_best = which == OfRun::result && best;
  const std::uint64_t step = takes_best ? best->best()->steps_done : content.step;
  RunState state = content.snapshot && step == content.step ? std::move(*content.snapshot)
                                                            : state_after(folder, content.header, step, warn);
  return {.kind = "run",
          .space = content.header.space,
          .base_model = content.header.base_model,
          .state = std::move(state),
          .run = content.header,
          .step = step,
          .best = std::move(best)};
}

std::optional<AdapterSource> AdapterSource::find(const std::string& path, OfRun which, Logger& log) {
  if (is_run(path)) return from_run(path, which, log);
  if (file_exists(path + "/adapter_config.json")) return from_adapter(path);
  if (std::filesystem::is_regular_file(path)) return from_snapshot(path);
  return std::nullopt;
}

void print_text(std::string_view text) { std::cout << printable_lines(text); }

std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

bool is_run(const std::string& path) { return RunFolder{path}.has_trajectory(); }

CLI::Validator whole_number() {
  const auto check = [](const std::string& text) {
    const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
    return digits ? std::string() : fmt::format("found {}, expected a whole number from 0", text);
  };
  return {check, "", "whole number"};
}

CLI::Validator finite_number() {
  const auto check = [](const std::string& text) {
    double value = 0.0;
    const bool finite = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
    return finite ? std::string() : fmt::format("found {}, expected a finite number", text);
  };
  return {check, "", "finite number"};
}

void flush_standard_output() {
  errno = 0;
  if (std::cout.flush()) return;
  if (errno != 0) throw io_error("write", "standard output", errno);
  throw IoError("standard output: cannot write");  // what was wrong is known to an earlier call alone
}

void check_target(const std::string& path, bool overwrite) {
  if (path.empty()) throw UsageError("the target is an empty text, expected a folder");
  if (overwrite || !file_exists(path)) return;
  std::error_code error;
  if (std::filesystem::is_empty(path, error) && std::filesystem::is_directory(path, error)) return;
  throw UsageError("{}: exists already; give --overwrite to replace it", path);
}

void check_other_than_base(const std::string& target, const std::string& base) {
  std::error_code missing;
  if (!std::filesystem::equivalent(base, target, missing)) return;
  throw UsageError("--merged: {} is the base model itself; expected another folder", target);
}

RuntimeConfig DeviceOptions::runtime() const {
  RuntimeConfig config;
  for (const Device value : {Device::automatic, Device::cpu, Device::cuda, Device::reference}) {
    if (name_of(value) == device) config.device = value;
  }
  if (threads > 0) config.threads = threads;
  return config;
}

void add_device_options(CLI::App& verb, DeviceOptions& options) {
  verb.add_option("--device", options.device, "where to run")
      ->check(CLI::IsMember({"auto", "cpu", "cuda", "reference"}))
      ->capture_default_str();
  verb.add_option("--threads", options.threads, "CPU threads (default: all cores)")
      ->check(CLI::PositiveNumber);
}

CLI::Validator model_path() {
  const auto find = [](std::string& name) {
    name = find_model(name);
    return std::string();
  };
  return CLI::Validator(find, "");
}

void warn_of_another_base(const AdapterSource& adapter, const ModelFiles& files, Logger& log) {
  if (!adapter.run) return;
  const std::string hash = files.hash(static_cast<int>(allowed_processors().size()));
  if (hash == adapter.run->base_hash) return;
  log.warning("{}: is not the base model of the run: its hash is {}, expected {}", files.directory, hash,
              adapter.run->base_hash);
}

ModelOnDevice load_model(const ModelFiles& files, const AdapterSource* adapter, const Placement& placement) {
  ModelOnDevice loaded{.backend = make_backend(placement.backend_options()), .model = nullptr};
  if (adapter != nullptr) {
    adapter->space->check_model(files.description, files.directory);
    Trainables trainables =
        make_trainables(*loaded.backend, adapter->space->trainables(), adapter->state.values);
    loaded.model = std::make_unique<LoadedModel>(*loaded.backend, files.description, *adapter->space,
                                                 TrainedState{std::move(trainables), {}});
  } else {
    loaded.model = std::make_unique<LoadedModel>(*loaded.backend, files.description);
  }
  loaded.model->decoder.load(files, {});
  return loaded;
}

}  // namespace mezzo
