// The parameter space of a model's own linear layers, moved along low-rank noise: a direction changes W by
// epsilon U V^T / sqrt(rank) (EGGROLL: Sarkar et al. 2025, arXiv:2511.16652), which a probe's forward adds as
// a low-rank tail, without a second W.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/core/noise.h"
#include "mezzo/io/convert.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/model/layers.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/merged.h"
#include "mezzo/zo/parameter_space.h"
#include "target_modules.h"

namespace mezzo {

namespace {

constexpr std::int64_t most_of_a_count = std::numeric_limits<std::int32_t>::max();  // as of the config's
constexpr std::string_view weight_suffix = ".weight";

std::vector<LinearModule> trained_modules(const Description& description, const TargetModules& targets) {
  if (targets.all_linear) return linear_modules(description);
  return targeted_modules(description, targets.names, "zo.target_modules");
}

/// A trainable is the weight [out, in] of a module, whichever way round its file holds it.
std::vector<TrainableSpec> low_rank_trainables(const Description& description, const TargetModules& targets,
                                               std::int64_t rank) {
  std::vector<TrainableSpec> specs;
  for (const LinearModule& module : trained_modules(description, targets)) {
    specs.push_back({.name = module.name + std::string(weight_suffix),
                     .rows = module.out,
                     .cols = module.in,
                     .noise_rank = rank});
  }
  std::ranges::sort(specs, {}, &TrainableSpec::name);  // std::string compares bytes
  return specs;
}

/// The most that any of the weights can have: more is a slip, and its factors would fill the memory.
std::int64_t largest_rank(std::span<const TrainableSpec> trainables) {
  std::int64_t largest = 0;
  for (const TrainableSpec& spec : trainables) largest = std::max(largest, std::min(spec.rows, spec.cols));
  return largest;
}

class LowRankSpace final : public ParameterSpace {
 public:
  LowRankSpace(std::int64_t rank, TargetModules targets, std::vector<TrainableSpec> trainables)
      : ParameterSpace(std::move(trainables)), rank_(rank), targets_(std::move(targets)) {}

  std::string_view kind() const override { return "low_rank"; }

  nlohmann::ordered_json constants() const override {
    nlohmann::ordered_json json = {{"rank", rank_}};
    json["target_modules"] = to_record(targets_);
    return json;
  }

  std::vector<float> initial_values(std::uint64_t, const std::string& model) const override {
    const ModelFiles files(model);
    check_model(files.description, model);
    const std::map<std::string, LinearModule> modules = modules_of(files.description);
    std::vector<float> values;
    values.reserve(static_cast<std::size_t>(element_count(trainables())));
    std::vector<float> stored;
    for (const TrainableSpec& spec : trainables()) {
      const TensorInfo& tensor = files.weight(spec.name);
      stored.resize(static_cast<std::size_t>(spec.count()));
      to_float(tensor, stored);
      files.tensors.release(tensor);
      const bool transposed = modules.at(spec.name).transposed;
      for (std::int64_t i = 0; transposed && i < spec.rows; ++i) {
        for (std::int64_t j = 0; j < spec.cols; ++j)
          values.push_back(stored[static_cast<std::size_t>(j * spec.rows + i)]);
      }
      if (!transposed) values.insert(values.end(), stored.begin(), stored.end());
    }
    return values;
  }

  void check_model(const Description& description, const std::string& model) const override {
    if (low_rank_trainables(description, targets_, rank_) == trainables()) return;
    throw InputError("{}: the trained weights do not belong to this model", model);
  }

  Perturbations perturbations(const Description& description, const Trainables& values) const override {
    if (low_rank_trainables(description, targets_, rank_) != trainables())
      throw Error("the trainables are not the weights that the space selects in this model");
    Perturbations perturbations;
    for (std::size_t id = 0; id < trainables().size(); ++id) {
      const TrainableSpec& spec = trainables()[id];
      const auto number = static_cast<std::uint32_t>(id);
      const std::string module = spec.name.substr(0, spec.name.size() - weight_suffix.size());
      perturbations[module] = LowRankTail{.a = dense(nullptr, DType::f32, rank_, spec.cols),
                                          .b = dense(nullptr, DType::f32, spec.rows, rank_),
                                          .a_noise = outer_columns(number),
                                          .b_noise = outer_rows(number),
                                          .scaling = outer_scale(rank_),
                                          .outer = true,
                                          .weight = values.view(id)};
    }
    return perturbations;
  }

  bool has_adapter() const override { return false; }

  void write_adapter(const std::string&, const Description&, std::span<const float>,
                     const std::string&) const override {
    refuse_adapter();
  }

  std::vector<float> read_adapter(const std::string&) const override { refuse_adapter(); }

  void write_merged(const ModelFiles& files, std::span<const float> values, DType dtype,
                    const std::string& directory, bool overwrite) const override {
    const std::map<std::string, LinearModule> modules = modules_of(files.description);
    WeightChanges changes;
    std::size_t offset = 0;
    for (const TrainableSpec& spec : trainables()) {
      const auto count = static_cast<std::size_t>(spec.count());
      if (count > values.size() - offset) throw Error("a model was to be written with too few values");
      const std::span<const float> weight = values.subspan(offset, count);
      const bool transposed = modules.at(spec.name).transposed;
      changes[spec.name] = [weight, transposed, in = spec.cols](std::int64_t first, std::int64_t rows,
                                                                std::int64_t cols, std::span<double> stored) {
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < cols; ++j) {
            const std::int64_t from = transposed ? j * in + first + i : (first + i) * in + j;
            stored[static_cast<std::size_t>(i * cols + j)] = weight[static_cast<std::size_t>(from)];
          }
        }
      };
      offset += count;
    }
    export_changed(files, changes, dtype, directory, default_shard_bytes, overwrite);
  }

  std::vector<UpdateSize> update_sizes(const ModelFiles& files, std::span<const float> start,
                                       std::span<const float> values) const override {
    const std::map<std::string, std::span<const float>> before = values_by_name(trainables(), start);
    const std::map<std::string, std::span<const float>> now = values_by_name(trainables(), values);
    std::vector<UpdateSize> sizes;
    for (const LinearModule& module : trained_modules(files.description, targets_)) {
      const std::string name = module.name + std::string(weight_suffix);
      const std::span<const float> old = before.at(name);
      const std::span<const float> weight = now.at(name);
      double moved = 0.0;  // sums of squares
      double kept = 0.0;
      for (std::size_t i = 0; i < old.size(); ++i) {
        const double difference = static_cast<double>(weight[i]) - static_cast<double>(old[i]);
        moved += difference * difference;
        kept += static_cast<double>(old[i]) * static_cast<double>(old[i]);
      }
      sizes.push_back({.module = module.name,
                       .layer = module.layer,
                       .update = std::sqrt(moved),
                       .weight = std::sqrt(kept)});
    }
    return sizes;
  }

  void resolve(Config& config) const override {
    config.zo.rank = rank_;
    config.zo.target_modules = targets_;
  }

 private:
  /// By the weights' names.
  static std::map<std::string, LinearModule> modules_of(const Description& description) {
    std::map<std::string, LinearModule> modules;
    for (const LinearModule& module : linear_modules(description))
      modules[module.name + std::string(weight_suffix)] = module;
    return modules;
  }

  [[noreturn]] static void refuse_adapter() {
    throw UsageError(
        "zo.space: low_rank trains whole weights, which no adapter holds; take the merged model instead");
  }

  std::int64_t rank_;
  TargetModules targets_;
};

}  // namespace

ConfiguredSpace configure_low_rank_space(const Config& config, const Description& description,
                                         const std::string&) {
  const std::int64_t rank = config.zo.rank;
  TargetModules targets = config.zo.target_modules;
  if (targets.unset()) targets.all_linear = true;
  std::vector<TrainableSpec> trainables = low_rank_trainables(description, targets, rank);
  if (const std::int64_t largest = largest_rank(trainables); rank > largest) {
    throw UsageError("zo.rank: found {}, expected at most {}, the largest rank of a trained weight", rank,
                     largest);
  }
  return {.space = std::make_shared<LowRankSpace>(rank, std::move(targets), std::move(trainables)),
          .start = std::nullopt};
}

std::shared_ptr<const ParameterSpace> low_rank_space(const Description& description, std::int64_t rank) {
  const TargetModules all{.all_linear = true, .names = {}};
  return std::make_shared<LowRankSpace>(rank, all, low_rank_trainables(description, all, rank));
}

std::shared_ptr<const ParameterSpace> recorded_low_rank_space(const JsonCursor& constants,
                                                              std::vector<TrainableSpec> trainables) {
  constants.check_keys({"kind", "rank", "target_modules"});
  const std::int64_t rank = constants["rank"].integer(1, most_of_a_count);
  TargetModules targets = read_target_modules(constants["target_modules"]);
  if (rank > largest_rank(trainables)) constants["rank"].fail("at most the largest rank of a trained weight");
  for (TrainableSpec& spec : trainables) {
    if (!spec.name.ends_with(weight_suffix))
      throw InputError("{}: the trainable {} is not the weight of a module", constants.where(), spec.name);
    spec.noise_rank = rank;
  }
  return std::make_shared<LowRankSpace>(rank, std::move(targets), std::move(trainables));
}

}  // namespace mezzo
