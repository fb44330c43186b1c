// The parameter space of LoRA adapters: both factors of each adapted module.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/merged.h"
#include "mezzo/zo/parameter_space.h"
#include "target_modules.h"

namespace mezzo {

namespace {

/// Vectors of one length, row-major [count][length].
struct Rows {
  std::int64_t length = 0;
  std::vector<double> values;

  std::int64_t count() const { return static_cast<std::int64_t>(values.size()) / length; }
  std::span<const double> row(std::int64_t i) const {
    return std::span(values).subspan(static_cast<std::size_t>(i * length), static_cast<std::size_t>(length));
  }
};

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// The Frobenius norm of sum over k of left_k right_k^T, which is not formed: the square root of
/// tr(G H) = sum over i and j of G_ij H_ij, with the Gram matrices G of `left` and H of `right`.
double norm_of_product(const Rows& left, const Rows& right) {
  double squares = 0.0;
  for (std::int64_t i = 0; i < left.count(); ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      const double term = dot(left.row(i), left.row(j)) * dot(right.row(i), right.row(j));
      squares += i == j ? term : 2.0 * term;
    }
  }
  return squares < 0.0 ? 0.0 : std::sqrt(squares);  // a sum that is 0 can be rounded below it
}

/// A module's factors, A [r, in] and B [out, r].
struct FactorPair {
  std::span<const float> a;
  std::span<const float> b;
};

/// The Frobenius norm of B A - B0 A0 of rank r. It is taken as (B - B0) A + B0 (A - A0), a product of rank
/// 2 r, so that a small update of large factors is no difference of large products.
double norm_of_update(const FactorPair& start, const FactorPair& now, std::int64_t r) {
  const auto at = [](std::span<const float> matrix, std::int64_t index) {
    return static_cast<double>(matrix[static_cast<std::size_t>(index)]);
  };
  Rows left{.length = std::ssize(now.b) / r, .values = {}};
  Rows right{.length = std::ssize(now.a) / r, .values = {}};
  for (const bool moved_b : {true, false}) {
    for (std::int64_t k = 0; k < r; ++k) {
      for (std::int64_t o = k; o < std::ssize(now.b); o += r)
        left.values.push_back(moved_b ? at(now.b, o) - at(start.b, o) : at(start.b, o));
      for (std::int64_t i = k * right.length; i < (k + 1) * right.length; ++i)
        right.values.push_back(moved_b ? at(now.a, i) : at(now.a, i) - at(start.a, i));
    }
  }
  return norm_of_product(left, right);
}

/// The Frobenius norm of a stored tensor, a piece of its rows in memory at a time.
double norm_of(const ModelFiles& files, const TensorInfo& tensor) {
  constexpr std::int64_t piece_elements = std::int64_t{4} << 20;
  const std::int64_t all_rows = tensor.shape.at(0);
  const std::int64_t piece = std::max<std::int64_t>(1, piece_elements / tensor.row_elements());
  std::vector<float> values;
  double squares = 0.0;
  for (std::int64_t first = 0; first < all_rows; first += piece) {
    const std::int64_t rows = std::min(piece, all_rows - first);
    values.resize(static_cast<std::size_t>(rows * tensor.row_elements()));
    to_float(tensor, first, rows, values);
    for (const float value : values) squares += static_cast<double>(value) * static_cast<double>(value);
  }
  files.tensors.release(tensor);
  return std::sqrt(squares);
}

class LoraSpace final : public ParameterSpace {
 public:
  LoraSpace(AdapterConfig config, std::vector<TrainableSpec> trainables)
      : ParameterSpace(std::move(trainables)), config_(std::move(config)) {}

  std::string_view kind() const override { return "lora"; }

  nlohmann::ordered_json constants() const override {
    nlohmann::ordered_json json = {
        {"r", config_.r}, {"lora_alpha", config_.lora_alpha}, {"use_rslora", config_.use_rslora}};
    json["target_modules"] = to_record({.all_linear = config_.all_linear, .names = config_.target_modules});
    json["layers_to_transform"] = config_.layers_to_transform
                                      ? nlohmann::ordered_json(*config_.layers_to_transform)
                                      : nlohmann::ordered_json(nullptr);
    return json;
  }

  std::vector<float> initial_values(std::uint64_t seed, const std::string&) const override {
    return mezzo::initial_values(trainables(), seed);
  }

  void check_model(const Description& description, const std::string& model) const override {
    if (lora_trainables(description, config_) == trainables()) return;
    throw InputError("{}: the adapter's tensors do not belong to this model", model);
  }

  Perturbations perturbations(const Description& description, const Trainables& values) const override {
    return lora_perturbations(description, config_, values);
  }

  bool has_adapter() const override { return true; }

  void write_adapter(const std::string& directory, const Description& description,
                     std::span<const float> values, const std::string& base_model) const override {
    mezzo::write_adapter(directory, description, config_, values, base_model);
  }

  std::vector<float> read_adapter(const std::string& directory) const override {
    Adapter adapter = mezzo::read_adapter(directory);
    if (adapter.specs != trainables()) {
      throw InputError("{}: the adapter's tensors are not the run's", directory);
    }
    return std::move(adapter.values);
  }

  void write_merged(const ModelFiles& files, std::span<const float> values, DType dtype,
                    const std::string& directory, bool overwrite) const override {
    export_merged(files, config_, values, dtype, directory, default_shard_bytes, overwrite);
  }

  std::vector<UpdateSize> update_sizes(const ModelFiles& files, std::span<const float> start,
                                       std::span<const float> values) const override {
    const std::map<std::string, std::span<const float>> before = values_by_name(trainables(), start);
    const std::map<std::string, std::span<const float>> now = values_by_name(trainables(), values);
    const auto factors_in = [](const std::map<std::string, std::span<const float>>& all,
                               const std::string& module) {
      return FactorPair{.a = all.at(lora_a_name(module)), .b = all.at(lora_b_name(module))};
    };
    const auto scaling = static_cast<double>(config_.scaling());
    std::vector<UpdateSize> sizes;
    for (const LinearModule& module : adapted_modules(files.description, config_)) {
      const double product =
          norm_of_update(factors_in(before, module.name), factors_in(now, module.name), config_.r);
      sizes.push_back({.module = module.name,
                       .layer = module.layer,
                       .update = std::abs(scaling) * product,
                       .weight = norm_of(files, files.weight(module.name + ".weight"))});
    }
    return sizes;
  }

  void resolve(Config& config) const override {
    config.lora.r = config_.r;
    config.lora.lora_alpha = config_.lora_alpha;
    config.lora.target_modules = {.all_linear = config_.all_linear, .names = config_.target_modules};
    config.lora.layers_to_transform = config_.layers_to_transform;
  }

 private:
  AdapterConfig config_;
};

constexpr std::int64_t most_of_a_count = std::numeric_limits<std::int32_t>::max();  // as of the config's

double read_alpha(const JsonCursor& field) {
  const double alpha = field.number();
  if (std::abs(alpha) > double{std::numeric_limits<float>::max()})
    field.fail("a number that is finite in fp32");
  return alpha;
}

/// Pairs of factors of rank r, and nothing else.
void check_factors(std::span<const TrainableSpec> trainables, std::int64_t r, const std::string& where) {
  constexpr std::string_view a = ".lora_A.weight";
  constexpr std::string_view b = ".lora_B.weight";
  for (std::size_t i = 0; i < trainables.size(); i += 2) {  // A sorts before its B, and nothing between them
    const std::string& name = trainables[i].name;
    const bool pair = i + 1 < trainables.size() && name.ends_with(a) &&
                      trainables[i + 1].name == name.substr(0, name.size() - a.size()).append(b);
    if (!pair || trainables[i].rows != r || trainables[i + 1].cols != r) {
      throw InputError(
          "{}: the trainable {} is not the first of a pair {} [r, in] and {} [out, r] with r = {}", where,
          name, a, b, r);
    }
  }
}

}  // namespace

ConfiguredSpace configure_lora_space(const Config& config, const Description& description,
                                     const std::string& saved_start) {
  const LoraConfig& lora = config.lora;
  ConfiguredSpace result;
  AdapterConfig adapter;
  if (lora.adapter) {
    const bool use_copy = !saved_start.empty() && !std::filesystem::exists(*lora.adapter) &&
                          std::filesystem::exists(saved_start);
    Adapter start = read_adapter(use_copy ? saved_start : *lora.adapter, description);
    check_agreement(lora, start, description);
    adapter = std::move(start.config);
    result.start = {.key = "lora.adapter", .values = std::move(start.values)};
  } else {
    adapter = adapter_config(lora);
  }
  result.space = lora_space(description, adapter);
  return result;
}

std::shared_ptr<const ParameterSpace> lora_space(const Description& description,
                                                 const AdapterConfig& config) {
  AdapterConfig named = config;
  // What a run records is what it does: the family's own targets are named.
  if (!named.all_linear && named.target_modules.empty()) named.target_modules = description.names.query_value;
  std::vector<TrainableSpec> trainables = lora_trainables(description, named);
  return std::make_shared<LoraSpace>(std::move(named), std::move(trainables));
}

std::shared_ptr<const ParameterSpace> space_of(const Adapter& adapter) {
  return std::make_shared<LoraSpace>(adapter.config, adapter.specs);
}

std::shared_ptr<const ParameterSpace> recorded_lora_space(const JsonCursor& constants,
                                                          std::vector<TrainableSpec> trainables) {
  constants.check_keys({"kind", "r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform"});
  AdapterConfig config;
  config.r = constants["r"].integer(1, most_of_a_count);
  config.lora_alpha = read_alpha(constants["lora_alpha"]);
  config.use_rslora = constants["use_rslora"].boolean();
  TargetModules targets = read_target_modules(constants["target_modules"]);
  config.all_linear = targets.all_linear;
  if (!config.all_linear) config.target_modules = std::move(targets.names);
  if (const JsonCursor layers = constants["layers_to_transform"]; layers.missing() || !layers.is_unset()) {
    config.layers_to_transform.emplace();
    for (const JsonCursor& layer : layers.elements()) {
      config.layers_to_transform->push_back(layer.integer(0, most_of_a_count));
    }
  }
  check_factors(trainables, config.r, constants.where());
  return std::make_shared<LoraSpace>(std::move(config), std::move(trainables));
}

}  // namespace mezzo
