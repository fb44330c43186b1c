#pragma once
// LoRA adapters (Hu et al. 2021) in PEFT's words: which modules, which trainables, and PEFT's two files.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mezzo/model/description.h"
#include "mezzo/model/layers.h"
#include "mezzo/model/perturbations.h"
#include "mezzo/model/trainable_values.h"

namespace mezzo {

struct LoraConfig;  // the `lora` section of a run's config: mezzo/core/config.h

/// What PEFT's adapter_config.json says of an adapter, as far as it decides the maths.
struct AdapterConfig {
  std::int64_t r = 8;
  double lora_alpha = 16;
  bool all_linear = false;  ///< target_modules: all-linear, that is all but the head
  std::vector<std::string> target_modules =
      {};  ///< names and suffixes; empty: the family's own query and value
  std::optional<std::vector<std::int64_t>> layers_to_transform = {};  ///< none: all
  bool use_rslora = false;  ///< scaling lora_alpha / sqrt(r) instead of lora_alpha / r

  float scaling() const;
  bool operator==(const AdapterConfig&) const = default;
};

/// An adapter on the host.
struct Adapter {
  AdapterConfig config;
  std::string base_model;            ///< base_model_name_or_path, or ""
  std::vector<TrainableSpec> specs;  ///< bytewise order of the names
  std::vector<float> values;
};

/// PEFT's rule (check_target_module_exists): a target is a module's whole name, or all of it behind some dot.
bool is_targeted(const std::string& module, const std::string& target);

/// Which of `modules`, by their full names, the targets select. A target that selects none is a UsageError of
/// the config's `key`, which suggests what there is in `model` ("this llama model").
std::vector<bool> select_targeted(const std::vector<std::string>& modules,
                                  const std::vector<std::string>& targets, const std::string& key,
                                  const std::string& model);

/// The modules that names and suffixes select, in the order of the forward: a name that matches nothing is a
/// UsageError of the config's `key`, which suggests what there is.
std::vector<LinearModule> targeted_modules(const Description& description,
                                           const std::vector<std::string>& targets, const std::string& key);

/// The modules that an adapter perturbs, in the order of the forward. A target, or a layer, that matches
/// nothing is a UsageError that suggests what there is. Needs config.json only.
std::vector<LinearModule> adapted_modules(const Description& description, const AdapterConfig& config);

/// Names of a module's factors: "base_model.model." + module + ".lora_A.weight" ([r, in]), ".lora_B.weight"
/// ([out, r]).
std::string lora_a_name(const std::string& module);
std::string lora_b_name(const std::string& module);

/// The trainables of an adapter, in bytewise order of their names (so: tensor ids).
std::vector<TrainableSpec> lora_trainables(const Description& description, const AdapterConfig& config);

/// What the factors in `trainables` perturb: a low-rank tail for each adapted module. Error unless they are
/// the trainables of lora_trainables().
Perturbations lora_perturbations(const Description& description, const AdapterConfig& config,
                                 const Trainables& trainables);

/// The adapter that a run's `lora` section asks for, without an adapter to start from.
AdapterConfig adapter_config(const LoraConfig& config);
/// UsageError when the section says otherwise than the adapter that it starts from.
void check_agreement(const LoraConfig& config, const Adapter& adapter, const Description& description);

/// PEFT's start: B = 0, A ~ U(-1/sqrt(in), 1/sqrt(in)) (Kaiming with a = sqrt 5) from Philox, purpose
/// `initial`.
std::vector<float> initial_values(std::span<const TrainableSpec> specs, std::uint64_t seed);

/// Reads adapter_config.json and adapter_model.safetensors without the base model. What Mezzo does not serve
/// (DoRA, patterns, biases, modules_to_save, ...) is refused by name; so is a factor without its partner.
Adapter read_adapter(const std::string& directory);
/// The same, and InputError unless the adapter is one of the described model: every trainable there, in its
/// shape, and no other.
Adapter read_adapter(const std::string& directory, const Description& description);

/// Writes an adapter as PEFT would: adapter_config.json and adapter_model.safetensors (F32), each replaced
/// atomically, the same bytes for the same adapter. The directory is made when it is not there.
void write_adapter(const std::string& directory, const Description& description, const AdapterConfig& config,
                   std::span<const float> values, const std::string& base_model);

}  // namespace mezzo
