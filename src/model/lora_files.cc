// PEFT's two files of an adapter: adapter_config.json and adapter_model.safetensors.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "config_reader.h"
#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/safetensors.h"
#include "mezzo/model/lora.h"
#include "module_selection.h"

namespace mezzo {
namespace {

constexpr std::string_view config_name = "adapter_config.json";
constexpr std::string_view weights_name = "adapter_model.safetensors";
constexpr std::uint64_t config_limit = 64 << 20;  // bytes; all-linear lists may name every module

/// Keys of adapter_config.json that say nothing about the forward of a finished adapter, or that read_config
/// reads.
constexpr std::array known_keys{"auto_mapping",
                                "base_model_name_or_path",
                                "bias",
                                "corda_config",
                                "ensure_weight_tying",
                                "eva_config",
                                "fan_in_fan_out",
                                "inference_mode",
                                "init_lora_weights",
                                "layers_pattern",
                                "layers_to_transform",
                                "loftq_config",
                                "lora_alpha",
                                "lora_dropout",
                                "lora_ga_config",
                                "megatron_core",
                                "parent_library",
                                "peft_type",
                                "peft_version",
                                "qalora_group_size",
                                "r",
                                "revision",
                                "runtime_config",
                                "exclude_modules",
                                "target_modules",
                                "task_type",
                                "use_rslora"};

/// Whether a value says "not used": null, false, an empty list or object.
bool is_off(const nlohmann::json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         ((value.is_array() || value.is_object()) && value.empty());
}

/// What can be read from adapter_config.json alone.
struct ReadConfig {
  AdapterConfig adapter;
  std::string base_model;
  ModuleSelection selection;
};

ReadConfig read_config(const std::string& path) {
  const nlohmann::json json = read_json_file(path, config_limit);
  const JsonCursor config(json, path);
  if (config["peft_type"].text() != "LORA") config["peft_type"].refuse("LORA");
  check_only(config["task_type"], "CAUSAL_LM");
  check_only(config["bias"], "none");
  if (const JsonCursor start = config["init_lora_weights"]; !start.is_unset()) {
    // The others change the base model's weights, which then are not the ones that this adapter belongs to.
    const nlohmann::json& how = start.value();
    const bool plain = how.is_boolean() || how == "gaussian" || how == "orthogonal" || how == "eva";
    if (!plain) start.refuse("true, false, gaussian, orthogonal or eva");
  }
  for (const auto& [key, value] : config.members()) {
    if (std::ranges::count(known_keys, key) > 0 || is_off(value.value())) continue;
    value.fail("null, false or nothing in it (what it asks for is not served)");
  }

  ReadConfig result{.adapter = {},
                    .base_model = config["base_model_name_or_path"].text_or(""),
                    .selection = ModuleSelection(config)};
  result.adapter.r = read_size(config["r"], width_limit);
  result.adapter.lora_alpha = config["lora_alpha"].number();
  result.adapter.use_rslora = config["use_rslora"].boolean_or(false);
  if (!result.selection.is_plain()) return result;  // the tensors say which modules it came to

  result.adapter.all_linear = result.selection.all_linear();
  result.adapter.target_modules = result.selection.names();
  std::ranges::sort(result.adapter.target_modules);
  if (!result.selection.layers().empty()) result.adapter.layers_to_transform = result.selection.layers();
  return result;
}

/// The module that a factor's key belongs to, and which factor it is.
struct Factor {
  std::string module;
  bool is_a = false;
};

Factor parse_factor(const std::string& name, const std::string& path) {
  constexpr std::string_view root = "base_model.model.";
  for (const bool is_a : {true, false}) {
    const std::string_view suffix = is_a ? ".lora_A.weight" : ".lora_B.weight";
    if (name.starts_with(root) && name.ends_with(suffix) && name.size() > root.size() + suffix.size()) {
      return {name.substr(root.size(), name.size() - root.size() - suffix.size()), is_a};
    }
  }
  throw InputError(
      "{}: tensor {} is no LoRA factor, expected base_model.model.MODULE.lora_A.weight or .lora_B.weight",
      path, quote(name));
}

/// Names of tensors -> the specs, with shapes checked against r and every factor's partner there.
std::vector<TrainableSpec> read_specs(const Safetensors& tensors, std::int64_t r, const std::string& path) {
  std::vector<TrainableSpec> specs;
  for (const std::string& name : tensors.names()) {  // bytewise order
    const Factor factor = parse_factor(name, path);
    const TensorInfo& tensor = tensors.at(name);
    const std::size_t rank_axis = factor.is_a ? 0 : 1;
    if (tensor.shape.size() != 2 || tensor.shape[rank_axis] != r || tensor.elements() == 0) {
      throw InputError("{}: tensor {} has the shape [{}], expected {} with r = {} by {}", path, name,
                       fmt::join(tensor.shape, ", "), factor.is_a ? "[r, in]" : "[out, r]", r, config_name);
    }
    const std::string partner = factor.is_a ? lora_b_name(factor.module) : lora_a_name(factor.module);
    if (!tensors.contains(partner)) {
      throw InputError("{}: tensor {} is there without its partner {}", path, name, partner);
    }
    specs.push_back({name, tensor.shape[0], tensor.shape[1]});
  }
  if (specs.empty()) throw InputError("{}: holds no tensors, expected the factors of an adapter", path);
  return specs;
}

std::vector<float> read_tensors(const Safetensors& tensors, const std::vector<TrainableSpec>& specs) {
  std::vector<float> values;
  for (const TrainableSpec& spec : specs) {
    const std::size_t first = values.size();
    values.resize(first + static_cast<std::size_t>(spec.count()));
    const std::span<float> part = std::span(values).subspan(first);
    const TensorInfo& tensor = tensors.at(spec.name);
    to_float(tensor, part);
    const auto bad = std::ranges::find_if_not(part, [](float value) { return std::isfinite(value); });
    if (bad != part.end()) {
      throw InputError("{}: tensor {} has the value {} at element {}, expected finite numbers", tensor.file,
                       spec.name, *bad, bad - part.begin());
    }
  }
  return values;
}

/// A selection as a list that PEFT reads the same way; sorted, since PEFT takes it for a set.
std::vector<std::string> written_targets(const Description& description, const AdapterConfig& config) {
  std::set<std::string> targets(config.target_modules.begin(), config.target_modules.end());
  if (config.all_linear) {
    for (const LinearModule& module : linear_modules(description)) {
      targets.insert(module.name.substr(module.name.rfind('.') + 1));
    }
  } else if (targets.empty()) {
    targets.insert(description.names.query_value.begin(), description.names.query_value.end());
  }
  return {targets.begin(), targets.end()};
}

/// Takes out targets and layers that the model does not have: PEFT passes over them in an adapter's files.
void drop_unmatched(AdapterConfig& config, const Description& description, const std::string& path) {
  if (config.layers_to_transform) {
    std::erase_if(*config.layers_to_transform,
                  [&](std::int64_t layer) { return layer >= description.layers; });
    if (config.layers_to_transform->empty()) {
      throw InputError("{}: layers_to_transform names no layer of the base model, which has {}", path,
                       description.layers);
    }
  }
  if (config.all_linear) return;
  const std::vector<LinearModule> modules = linear_modules(description);
  std::erase_if(config.target_modules, [&](const std::string& target) {
    return std::ranges::none_of(modules,
                                [&](const LinearModule& module) { return is_targeted(module.name, target); });
  });
  if (config.target_modules.empty()) {
    throw InputError("{}: target_modules selects no module of the base model, a {} model", path,
                     description.family);
  }
}

nlohmann::json config_json(const Description& description, const AdapterConfig& config,
                           const std::string& base_model) {
  nlohmann::json alpha = config.lora_alpha;
  if (config.lora_alpha == std::floor(config.lora_alpha) && std::abs(config.lora_alpha) < 1e15) {
    alpha = static_cast<std::int64_t>(config.lora_alpha);  // PEFT's own type for it
  }
  nlohmann::json layers;
  if (config.layers_to_transform && !config.layers_to_transform->empty())
    layers = *config.layers_to_transform;
  const nlohmann::json none;
  return {{"alpha_pattern", nlohmann::json::object()},
          {"auto_mapping", none},
          {"base_model_name_or_path", base_model.empty() ? none : nlohmann::json(base_model)},
          {"bias", "none"},
          {"exclude_modules", none},
          {"fan_in_fan_out", description.transposed},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"layer_replication", none},
          {"layers_pattern", none},
          {"layers_to_transform", layers},
          {"loftq_config", nlohmann::json::object()},
          {"lora_alpha", alpha},
          {"lora_bias", false},
          {"lora_dropout", 0.0},
          {"megatron_config", none},
          {"megatron_core", "megatron.core"},
          {"modules_to_save", none},
          {"peft_type", "LORA"},
          {"r", config.r},
          {"rank_pattern", nlohmann::json::object()},
          {"revision", none},
          {"target_modules", written_targets(description, config)},
          {"task_type", "CAUSAL_LM"},
          {"use_dora", false},
          {"use_rslora", config.use_rslora}};
}

/// The files of an adapter, and what selects its modules where names alone do not say it.
struct ReadAdapter {
  Adapter adapter;
  ModuleSelection selection;
};

ReadAdapter read_files(const std::string& directory) {
  const std::string weights_path = fmt::format("{}/{}", directory, weights_name);
  ReadConfig config = read_config(fmt::format("{}/{}", directory, config_name));
  const Safetensors tensors = Safetensors::open(weights_path);
  Adapter adapter{.config = std::move(config.adapter),
                  .base_model = std::move(config.base_model),
                  .specs = {},
                  .values = {}};
  adapter.specs = read_specs(tensors, adapter.config.r, weights_path);
  if (!config.selection.is_plain()) {
    // Named in full, the modules need neither patterns nor layers.
    std::set<std::string> modules;
    for (const TrainableSpec& spec : adapter.specs)
      modules.insert(parse_factor(spec.name, weights_path).module);
    for (const std::string& module : modules) {
      if (config.selection.selects(module)) continue;
      throw InputError("{}: tensor {} is there, but {} does not select its module", weights_path,
                       lora_a_name(module), config_name);
    }
    adapter.config.target_modules.assign(modules.begin(), modules.end());
  }
  adapter.values = read_tensors(tensors, adapter.specs);
  return {std::move(adapter), std::move(config.selection)};
}

/// A module that the selection takes and the tensors lack was trained elsewhere, or is another model's.
void check_complete(const ReadAdapter& read, const Description& description, const std::string& directory) {
  const std::vector<std::string>& modules = read.adapter.config.target_modules;  // bytewise order
  for (const LinearModule& module : linear_modules(description)) {
    if (!read.selection.selects(module.name) || std::ranges::binary_search(modules, module.name)) continue;
    throw InputError("{}/{}: tensor {} is missing, though {} selects its module in the base model", directory,
                     weights_name, lora_a_name(module.name), config_name);
  }
}

}  // namespace

Adapter read_adapter(const std::string& directory) { return read_files(directory).adapter; }

Adapter read_adapter(const std::string& directory, const Description& description) {
  ReadAdapter read = read_files(directory);
  if (!read.selection.is_plain()) check_complete(read, description, directory);
  Adapter adapter = std::move(read.adapter);
  drop_unmatched(adapter.config, description, fmt::format("{}/{}", directory, config_name));
  std::map<std::string_view, const TrainableSpec*> found;
  for (const TrainableSpec& spec : adapter.specs) found[spec.name] = &spec;
  for (const TrainableSpec& expected : lora_trainables(description, adapter.config)) {
    const auto entry = found.find(expected.name);
    if (entry == found.end()) {
      throw InputError("{}/{}: tensor {} is missing, expected [{}, {}] by {} and the base model", directory,
                       weights_name, expected.name, expected.rows, expected.cols, config_name);
    }
    if (*entry->second != expected) {
      throw InputError("{}/{}: tensor {} has the shape [{}, {}], expected [{}, {}] by the base model",
                       directory, weights_name, expected.name, entry->second->rows, entry->second->cols,
                       expected.rows, expected.cols);
    }
    found.erase(entry);
  }
  if (!found.empty()) {
    throw InputError("{}/{}: tensor {} belongs to no module that {} selects in the base model", directory,
                     weights_name, found.begin()->first, config_name);
  }
  return adapter;
}

void write_adapter(const std::string& directory, const Description& description, const AdapterConfig& config,
                   std::span<const float> values, const std::string& base_model) {
  std::vector<TensorSource> tensors;
  std::size_t first = 0;
  for (const TrainableSpec& spec : lora_trainables(description, config)) {
    const auto count = static_cast<std::size_t>(spec.count());
    if (count > values.size() - first) throw Error("an adapter was to be written with too few values");
    tensors.push_back(float_source(spec.name, {spec.rows, spec.cols}, values.subspan(first, count)));
    first += count;
  }
  if (first != values.size()) throw Error("an adapter was to be written with too many values");
  create_directories(directory);
  write_safetensors(fmt::format("{}/{}", directory, weights_name), tensors, {{"format", "pt"}});
  // Last, so that a directory with a config is a whole adapter.
  write_file_atomically(fmt::format("{}/{}", directory, config_name),
                        config_json(description, config, base_model).dump(2) + "\n");
}

}  // namespace mezzo
