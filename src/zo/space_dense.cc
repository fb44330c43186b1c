// The parameter spaces of a model's own tensors, moved along noise of their elements (MeZO: Malladi et al.
// 2023, arXiv:2305.17333). `dense` has weights, biases, norms and embeddings; `vectors` biases and norms
// alone (BitFit: Ben Zaken et al. 2022, arXiv:2106.10199, and norm tuning).
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/model/layers.h"
#include "mezzo/model/lora.h"
#include "target_modules.h"
#include "whole_tensors.h"

namespace mezzo {

namespace {

/// The tensors of modules that a config names.
std::vector<WeightSpec> named(const std::vector<WeightSpec>& tensors, const Description& description,
                              const std::vector<std::string>& names, SpaceType space) {
  std::vector<std::string> modules;
  for (const WeightSpec& tensor : tensors) modules.push_back(tensor.module);
  const std::vector<bool> selected = select_targeted(
      modules, names, "zo.target_modules",
      fmt::format("this {} model that zo.space {} trains", description.family, name_of(space)));
  std::vector<WeightSpec> found;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (selected[i]) found.push_back(tensors[i]);
  }
  return found;
}

std::vector<WeightSpec> of_linear_modules(const std::vector<WeightSpec>& tensors,
                                          const Description& description) {
  std::set<std::string> linear;
  for (const LinearModule& module : linear_modules(description)) linear.insert(module.name);
  std::vector<WeightSpec> found;
  std::ranges::copy_if(tensors, std::back_inserter(found),
                       [&](const WeightSpec& tensor) { return linear.contains(tensor.module); });
  return found;
}

std::vector<TrainableSpec> trained_tensors(const Description& description, const TargetModules& targets,
                                           SpaceType space) {
  std::vector<WeightSpec> tensors = weight_specs(description);
  if (space == SpaceType::vectors)
    std::erase_if(tensors, [](const WeightSpec& tensor) { return !tensor.is_vector(); });
  if (targets.all_linear) {
    tensors = of_linear_modules(tensors, description);
  } else if (!targets.unset()) {
    tensors = named(tensors, description, targets.names, space);
  }
  std::vector<TrainableSpec> specs;
  for (const WeightSpec& tensor : tensors) {
    if (tensor.in_mixture) {
      throw UsageError("zo.space: {} cannot train {}, a part of a mixture of experts, yet; low_rank can",
                       name_of(space), tensor.name);
    }
    specs.push_back({.name = tensor.name, .rows = tensor.rows(), .cols = tensor.cols()});
  }
  if (specs.empty()) {
    throw UsageError("zo.target_modules: this {} model has no tensor there that zo.space {} trains",
                     description.family, name_of(space));
  }
  std::ranges::sort(specs, {}, &TrainableSpec::name);  // std::string compares bytes
  return specs;
}

class DenseSpace final : public WholeTensorsSpace {
 public:
  DenseSpace(SpaceType type, TargetModules targets, std::vector<TrainableSpec> trainables)
      : WholeTensorsSpace(std::move(trainables)), type_(type), targets_(std::move(targets)) {}

  std::string_view kind() const override { return name_of(type_); }

  nlohmann::ordered_json constants() const override {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    json["target_modules"] = targets_.unset() ? nlohmann::ordered_json() : to_record(targets_);
    return json;
  }

  Perturbations perturbations(const Description& description, const Trainables& values) const override {
    check_trainables_of(description);
    Perturbations perturbations;
    for (std::size_t id = 0; id < trainables().size(); ++id) {
      perturbations[trainables()[id].name] =
          DenseNoise{.value = values.view(id), .tensor = static_cast<std::uint32_t>(id)};
    }
    return perturbations;
  }

  void resolve(Config& config) const override { config.zo.target_modules = targets_; }

 private:
  std::vector<TrainableSpec> trainables_of(const Description& description) const override {
    return trained_tensors(description, targets_, type_);
  }

  SpaceType type_;
  TargetModules targets_;  // neither: all tensors
};

std::shared_ptr<const ParameterSpace> recorded(SpaceType type, const JsonCursor& constants,
                                               std::vector<TrainableSpec> trainables) {
  constants.check_keys({"kind", "target_modules"});
  const JsonCursor targets = constants["target_modules"];
  return std::make_shared<DenseSpace>(
      type, targets.is_unset() ? TargetModules{} : read_target_modules(targets), std::move(trainables));
}

}  // namespace

ConfiguredSpace configure_dense_space(const Config& config, const Description& description,
                                      const std::string&) {
  const SpaceType type = config.zo.space;
  const TargetModules& targets = config.zo.target_modules;
  return {.space = std::make_shared<DenseSpace>(type, targets, trained_tensors(description, targets, type)),
          .start = std::nullopt};
}

std::shared_ptr<const ParameterSpace> dense_space(const Description& description) {
  return std::make_shared<DenseSpace>(SpaceType::dense, TargetModules{},
                                      trained_tensors(description, {}, SpaceType::dense));
}

std::shared_ptr<const ParameterSpace> recorded_dense_space(const JsonCursor& constants,
                                                           std::vector<TrainableSpec> trainables) {
  return recorded(SpaceType::dense, constants, std::move(trainables));
}

std::shared_ptr<const ParameterSpace> recorded_vectors_space(const JsonCursor& constants,
                                                             std::vector<TrainableSpec> trainables) {
  return recorded(SpaceType::vectors, constants, std::move(trainables));
}

}  // namespace mezzo
