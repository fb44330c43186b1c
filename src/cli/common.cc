#include "mezzo/cli/common.h"

#include <filesystem>

#include "mezzo/core/error.h"

namespace mezzo {

AdapterSource AdapterSource::from_adapter(const std::string& directory) {
  Adapter adapter = read_adapter(directory);
  return {.kind = "adapter",
          .config = adapter.config,
          .trainables = std::move(adapter.specs),
          .base_model = adapter.base_model,
          .state = {.step = 0, .values = std::move(adapter.values)},
          .run = std::nullopt};
}

AdapterSource AdapterSource::from_snapshot(const std::string& file) {
  Snapshot snapshot = read_snapshot(file);
  return {.kind = "snapshot",
          .config = snapshot.header.adapter,
          .trainables = snapshot.header.trainables,
          .base_model = snapshot.header.base_model,
          .state = std::move(snapshot.state),
          .run = std::move(snapshot.header)};
}

AdapterSource AdapterSource::from_run(const std::string& directory, Logger& log) {
  const RunFolder folder{directory};
  const TrajectoryScan scan = scan_trajectory(folder.trajectory());
  if (scan.end.kind != RecordEnd::Kind::clean) log.warning("{}", scan.end.reason);
  RunState state = nearest_state(folder, scan.header, scan.end_step,
                                 [&](const std::string& text) { log.warning("{}", text); });
  const std::unique_ptr<Backend> backend = make_backend({});
  Trainables trainables = make_trainables(*backend, scan.header.trainables, state.values);
  replay_records(folder.trajectory(), scan.header, state.step, scan.end_step, *backend, trainables);
  state = {.step = scan.end_step, .values = read_values(*backend, trainables)};
  return {.kind = "run",
          .config = scan.header.adapter,
          .trainables = scan.header.trainables,
          .base_model = scan.header.base_model,
          .state = std::move(state),
          .run = scan.header};
}

std::optional<AdapterSource> AdapterSource::find(const std::string& path, Logger& log) {
  if (is_run(path)) return from_run(path, log);
  if (std::filesystem::exists(path + "/adapter_config.json")) return from_adapter(path);
  if (std::filesystem::is_regular_file(path)) return from_snapshot(path);
  return std::nullopt;
}

bool is_run(const std::string& path) { return std::filesystem::exists(RunFolder{path}.trajectory()); }

void check_target(const std::string& path, bool overwrite) {
  if (overwrite || !std::filesystem::exists(path)) return;
  if (std::filesystem::is_directory(path) && std::filesystem::is_empty(path)) return;
  throw UsageError("{}: exists already; give --overwrite to replace it", path);
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

std::unique_ptr<LoadedModel> load_model(const ModelFiles& files, const AdapterSource* adapter,
                                        const Placement& placement) {
  auto model = std::make_unique<LoadedModel>();  // the decoder keeps a pointer to the trainables in it
  model->backend = make_backend(placement.backend_options());
  if (adapter != nullptr) {
    if (lora_trainables(files.description, adapter->config) != adapter->trainables) {
      throw InputError("{}: the adapter's tensors do not belong to this model", files.directory);
    }
    model->trainables = make_trainables(*model->backend, adapter->trainables, adapter->state.values);
  }
  model->decoder = std::make_unique<Decoder>(*model->backend, files.description,
                                             adapter != nullptr ? &adapter->config : nullptr,
                                             adapter != nullptr ? &model->trainables : nullptr);
  model->decoder->load(files, {});
  return model;
}

}  // namespace mezzo
