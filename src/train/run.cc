#include "mezzo/train/run.h"

#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/hdf5_file.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

constexpr std::uint64_t header_version = 1;
constexpr std::uint64_t snapshot_version = 1;

nlohmann::ordered_json to_json(const AdapterConfig& config) {
  nlohmann::ordered_json json = {
      {"r", config.r}, {"lora_alpha", config.lora_alpha}, {"use_rslora", config.use_rslora}};
  json["target_modules"] = config.all_linear ? nlohmann::ordered_json("all-linear")
                                             : nlohmann::ordered_json(config.target_modules);
  json["layers_to_transform"] = config.layers_to_transform
                                    ? nlohmann::ordered_json(*config.layers_to_transform)
                                    : nlohmann::ordered_json(nullptr);
  return json;
}

AdapterConfig adapter_from_json(const nlohmann::json& json) {
  AdapterConfig config;
  config.r = json.at("r").get<std::int64_t>();
  config.lora_alpha = json.at("lora_alpha").get<double>();
  config.use_rslora = json.at("use_rslora").get<bool>();
  const nlohmann::json& targets = json.at("target_modules");
  if (targets.is_string()) config.all_linear = true;
  else config.target_modules = targets.get<std::vector<std::string>>();
  if (const nlohmann::json& layers = json.at("layers_to_transform"); !layers.is_null()) {
    config.layers_to_transform = layers.get<std::vector<std::int64_t>>();
  }
  return config;
}

std::int64_t value_count(std::span<const TrainableSpec> specs) {
  std::int64_t count = 0;
  for (const TrainableSpec& spec : specs) count += spec.count();
  return count;
}

}  // namespace

std::string RunFolder::snapshot(std::uint64_t step) const { return snapshots() + "/" + snapshot_name(step); }

bool RunFolder::has_trajectory() const { return file_exists(trajectory()) && file_size(trajectory()) > 0; }

std::string RunHeader::to_json() const {
  nlohmann::ordered_json json;
  json["version"] = header_version;
  for (const IdentityEntry& entry : identity) json["identity"].push_back({entry.key, entry.value});
  json["base_model"] = {{"path", base_model}, {"hash", base_hash}};
  json["lora"] = mezzo::to_json(adapter);
  for (const TrainableSpec& spec : trainables)
    json["trainables"].push_back({spec.name, spec.rows, spec.cols});
  json["seed"] = seed;
  json["directions"] = directions;
  json["noise"] = name_of(noise);
  json["weight_decay"] = weight_decay;
  json["start_step"] = start_step;
  json["initial_adapter"] = initial_adapter;
  json["fingerprint"] = fingerprint;
  return json.dump();
}

RunHeader RunHeader::from_json(const std::string& text, const std::string& source) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (const auto version = json.at("version").get<std::uint64_t>(); version != header_version) {
      throw InputError("{}: the run's header has version {}, expected {}", source, version, header_version);
    }
    RunHeader header;
    for (const nlohmann::json& entry : json.at("identity")) {
      header.identity.push_back({entry.at(0).get<std::string>(), entry.at(1).get<std::string>()});
    }
    header.base_model = json.at("base_model").at("path").get<std::string>();
    header.base_hash = json.at("base_model").at("hash").get<std::string>();
    header.adapter = adapter_from_json(json.at("lora"));
    for (const nlohmann::json& entry : json.at("trainables")) {
      header.trainables.push_back(
          {entry.at(0).get<std::string>(), entry.at(1).get<std::int64_t>(), entry.at(2).get<std::int64_t>()});
    }
    header.seed = json.at("seed").get<std::uint64_t>();
    header.directions = json.at("directions").get<std::int64_t>();
    const auto noise = json.at("noise").get<std::string>();
    header.noise = noise == name_of(NoiseKind::rademacher) ? NoiseKind::rademacher : NoiseKind::gaussian;
    header.weight_decay = json.at("weight_decay").get<float>();
    header.start_step = json.at("start_step").get<std::uint64_t>();
    header.initial_adapter = json.at("initial_adapter").get<bool>();
    header.fingerprint = json.at("fingerprint").get<std::map<std::string, std::string>>();
    return header;
  } catch (const nlohmann::json::exception& error) {
    throw InputError("{}: the run's header is damaged: {}", source, error.what());
  }
}

void check_identity(const RunHeader& run, const RunHeader& now, const std::string& folder) {
  std::map<std::string, std::string> before;
  for (const IdentityEntry& entry : run.identity) before[entry.key] = entry.value;
  for (const IdentityEntry& entry : now.identity) {
    const auto found = before.find(entry.key);
    const std::string value = found == before.end() ? "not set" : found->second;
    if (value != entry.value) {
      throw UsageError(
          "{}: holds another run: {} is {} there, but {} now; take another train.output_dir, or the "
          "run's own value",
          folder, entry.key, value, entry.value);
    }
    before.erase(entry.key);
  }
  if (!before.empty()) {
    throw UsageError(
        "{}: holds another run: {} is {} there, but not set now; take another train.output_dir, or the "
        "run's own value",
        folder, before.begin()->first, before.begin()->second);
  }
}

void write_snapshot(const std::string& path, const RunHeader& header, const RunState& state) {
  Hdf5Writer writer(path);
  writer.create_group("/trainables");
  writer.create_group("/optimizer");  // sgd keeps no state
  std::size_t offset = 0;
  for (const TrainableSpec& spec : header.trainables) {
    const std::int64_t shape[] = {spec.rows, spec.cols};
    const auto count = static_cast<std::size_t>(spec.count());
    writer.write_array("/trainables/" + spec.name, DType::f32, shape,
                       std::as_bytes(std::span(state.values).subspan(offset, count)));
    offset += count;
  }
  writer.write_attribute("/meta", "version", snapshot_version);
  writer.write_attribute("/meta", "step", state.step);
  writer.write_attribute("/meta", "lora", to_json(header.adapter).dump());
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
  Snapshot snapshot{.header = RunHeader::from_json(reader.read_string("/meta", "run"), path),
                    .state = {.step = reader.read_u64("/meta", "step"), .values = {}}};
  snapshot.state.values.resize(static_cast<std::size_t>(value_count(snapshot.header.trainables)));
  std::size_t offset = 0;
  for (const TrainableSpec& spec : snapshot.header.trainables) {
    const std::int64_t shape[] = {spec.rows, spec.cols};
    const auto count = static_cast<std::size_t>(spec.count());
    reader.read_array("/trainables/" + spec.name, DType::f32, shape,
                      std::as_writable_bytes(std::span(snapshot.state.values).subspan(offset, count)));
    offset += count;
  }
  return snapshot;
}

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
