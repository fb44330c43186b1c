#include "mezzo/model/lora.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "mezzo/core/config.h"
#include "mezzo/core/error.h"
#include "mezzo/core/noise.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

constexpr std::string_view root = "base_model.model.";  // PEFT's wrapper around the model

void check_layers(const Description& description, const AdapterConfig& config) {
  if (!config.layers_to_transform) return;
  for (const std::int64_t layer : *config.layers_to_transform) {
    if (layer < 0 || layer >= description.layers) {
      throw UsageError("lora.layers_to_transform: there is no layer {}, expected 0 to {}", layer,
                       description.layers - 1);
    }
  }
}

}  // namespace

float AdapterConfig::scaling() const {
  const auto rank = static_cast<double>(r);
  return static_cast<float>(lora_alpha / (use_rslora ? std::sqrt(rank) : rank));
}

bool is_targeted(const std::string& module, const std::string& target) {
  if (!module.ends_with(target)) return false;
  return module.size() == target.size() || module[module.size() - target.size() - 1] == '.';
}

std::vector<bool> select_targeted(const std::vector<std::string>& modules,
                                  const std::vector<std::string>& targets, const std::string& key,
                                  const std::string& model) {
  std::vector<bool> selected(modules.size(), false);
  for (const std::string& target : targets) {
    bool matches = false;
    for (std::size_t i = 0; i < modules.size(); ++i) {
      if (!is_targeted(modules[i], target)) continue;
      selected[i] = true;
      matches = true;
    }
    if (matches) continue;
    std::set<std::string> known;  // last components: "c_attn, c_fc, c_proj"
    for (const std::string& module : modules) known.insert(module.substr(module.rfind('.') + 1));
    throw UsageError("{}: {} matches no module of {}, expected some of {}, or all-linear", key, quote(target),
                     model, fmt::join(known, ", "));
  }
  return selected;
}

std::vector<LinearModule> targeted_modules(const Description& description,
                                           const std::vector<std::string>& targets, const std::string& key) {
  const std::vector<LinearModule> all = linear_modules(description);
  std::vector<std::string> names;
  for (const LinearModule& module : all) names.push_back(module.name);
  const std::vector<bool> selected =
      select_targeted(names, targets, key, fmt::format("this {} model", description.family));
  std::vector<LinearModule> found;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (selected[i]) found.push_back(all[i]);
  }
  return found;
}

std::vector<LinearModule> adapted_modules(const Description& description, const AdapterConfig& config) {
  check_layers(description, config);
  const std::vector<std::string>& targets =
      config.target_modules.empty() ? description.names.query_value : config.target_modules;
  const std::vector<LinearModule> wanted =
      config.all_linear ? linear_modules(description)
                        : targeted_modules(description, targets, "lora.target_modules");
  // PEFT takes an empty list of layers for none given.
  const bool some_layers = config.layers_to_transform && !config.layers_to_transform->empty();
  std::vector<LinearModule> adapted;
  for (const LinearModule& module : wanted) {
    const bool in_layers = !some_layers || std::ranges::count(*config.layers_to_transform, module.layer) > 0;
    // A whole name is taken in any layer.
    if (in_layers || (!config.all_linear && std::ranges::count(targets, module.name) > 0))
      adapted.push_back(module);
  }
  if (adapted.empty() && some_layers) {
    throw UsageError("lora.layers_to_transform: no module of lora.target_modules is in the layers {}",
                     fmt::join(*config.layers_to_transform, ", "));
  }
  return adapted;
}

std::string lora_a_name(const std::string& module) { return fmt::format("{}{}.lora_A.weight", root, module); }
std::string lora_b_name(const std::string& module) { return fmt::format("{}{}.lora_B.weight", root, module); }

std::vector<TrainableSpec> lora_trainables(const Description& description, const AdapterConfig& config) {
  std::vector<TrainableSpec> specs;
  for (const LinearModule& module : adapted_modules(description, config)) {
    specs.push_back({lora_a_name(module.name), config.r, module.in});
    specs.push_back({lora_b_name(module.name), module.out, config.r});
  }
  std::ranges::sort(specs, {}, &TrainableSpec::name);  // std::string compares bytes
  return specs;
}

Perturbations lora_perturbations(const Description& description, const AdapterConfig& config,
                                 const Trainables& trainables) {
  const std::vector<TrainableSpec> specs = lora_trainables(description, config);
  const bool same =
      std::ranges::equal(specs, trainables.list, [](const TrainableSpec& a, const Trainable& b) {
        return a.name == b.name && a.rows == b.rows && a.cols == b.cols;
      });
  if (!same) throw Error("the trainables of a LoRA adapter are not those that its config selects");
  const auto id_of = [&](const std::string& name) {
    const auto spec = std::ranges::lower_bound(specs, name, {}, &TrainableSpec::name);
    return static_cast<std::size_t>(spec - specs.begin());
  };
  Perturbations perturbations;
  for (const LinearModule& module : adapted_modules(description, config)) {
    const std::size_t a = id_of(lora_a_name(module.name));
    const std::size_t b = id_of(lora_b_name(module.name));
    perturbations[module.name] = LowRankTail{.a = trainables.view(a),
                                             .b = trainables.view(b),
                                             .a_noise = static_cast<std::uint32_t>(a),
                                             .b_noise = static_cast<std::uint32_t>(b),
                                             .scaling = config.scaling()};
  }
  return perturbations;
}

AdapterConfig adapter_config(const LoraConfig& config) {
  AdapterConfig result;
  result.r = config.r.value_or(result.r);
  result.lora_alpha = config.lora_alpha.value_or(result.lora_alpha);
  result.all_linear = config.target_modules.all_linear;
  result.target_modules = config.target_modules.names;
  result.layers_to_transform = config.layers_to_transform;
  return result;
}

void check_agreement(const LoraConfig& config, const Adapter& adapter, const Description& description) {
  const AdapterConfig& found = adapter.config;
  const auto disagree = [](std::string_view key, const std::string& wanted, const std::string& there) {
    throw UsageError("lora.{}: the config says {}, but the adapter of lora.adapter has {}", key, wanted,
                     there);
  };
  if (config.r && *config.r != found.r) disagree("r", std::to_string(*config.r), std::to_string(found.r));
  if (config.lora_alpha && *config.lora_alpha != found.lora_alpha) {
    disagree("lora_alpha", fmt::format("{}", *config.lora_alpha), fmt::format("{}", found.lora_alpha));
  }
  if (config.target_modules.unset() && !config.layers_to_transform) return;
  // Two ways to write a selection are the same when they select the same modules.
  AdapterConfig wanted = found;
  if (!config.target_modules.unset()) {
    wanted.all_linear = config.target_modules.all_linear;
    wanted.target_modules = config.target_modules.names;
  }
  if (config.layers_to_transform) wanted.layers_to_transform = config.layers_to_transform;
  const std::vector<TrainableSpec> specs = lora_trainables(description, wanted);
  if (specs == adapter.specs) {
    if (!config.layers_to_transform || config.layers_to_transform->empty()) return;
    // An adapter's whole names are taken in any layer: what the config leaves out would go unnoticed.
    for (const LinearModule& module : adapted_modules(description, found)) {
      if (std::ranges::count(*config.layers_to_transform, module.layer) > 0) continue;
      throw UsageError(
          "lora.layers_to_transform: the config leaves layer {} out, but the adapter of lora.adapter has {}",
          module.layer, module.name);
    }
    return;
  }
  const std::string_view key = config.target_modules.unset() ? "layers_to_transform" : "target_modules";
  std::vector<TrainableSpec> difference;
  std::ranges::set_symmetric_difference(specs, adapter.specs, std::back_inserter(difference), {},
                                        &TrainableSpec::name, &TrainableSpec::name);
  throw UsageError(
      "lora.{}: the config and the adapter of lora.adapter select other modules; {} is in one alone", key,
      difference.empty() ? "a tensor of another shape" : difference.front().name);
}

std::vector<float> initial_values(std::span<const TrainableSpec> specs, std::uint64_t seed) {
  std::vector<float> values;
  for (std::size_t id = 0; id < specs.size(); ++id) {
    const TrainableSpec& spec = specs[id];
    const std::size_t first = values.size();
    values.resize(first + static_cast<std::size_t>(spec.count()));  // zero: right for B
    if (!spec.name.ends_with(".lora_A.weight")) continue;
    const float bound = kaiming_bound(static_cast<std::uint32_t>(spec.cols));
    for (std::size_t i = 0; first + i < values.size(); ++i) {
      values[first + i] = initial_uniform(seed, static_cast<std::uint32_t>(id), i, bound);
    }
  }
  return values;
}

}  // namespace mezzo
