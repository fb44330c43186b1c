#include "mezzo/train/run_header.h"

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

constexpr std::uint64_t header_version = 1;

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

}  // namespace

std::string lora_json(const AdapterConfig& config) { return to_json(config).dump(); }

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
    if (found == before.end() && entry.key == tokenizer_key) continue;
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

}  // namespace mezzo
