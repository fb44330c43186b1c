#include "mezzo/model/merged.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/convert.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/safetensors.h"

namespace mezzo {
namespace {

constexpr std::size_t piece_elements = std::size_t{4} << 20;
constexpr std::uint64_t copied_limit = std::uint64_t{1} << 30;  // bytes; a tokenizer.json has some millions

/// What belongs to a model besides config and weights.
constexpr std::array companions{"tokenizer.json",
                                "tokenizer.model",
                                "tokenizer_config.json",
                                "special_tokens_map.json",
                                "added_tokens.json",
                                "vocab.json",
                                "merges.txt",
                                "chat_template.jinja",
                                "generation_config.json"};

/// One module's factors. delta[o, i] = scaling * sum over k of b[o, k] * a[k, i].
struct Factors {
  std::span<const float> a;  ///< [r, in]
  std::span<const float> b;  ///< [out, r]
  std::int64_t in = 0;
  bool transposed = false;  ///< the file holds the weight as [in, out]
};

/// Adds the delta to the stored rows [first, first + rows) of a weight; `values` is [rows, cols]. In double,
/// so that only the sum is rounded.
void add_delta(const Factors& factors, const AdapterConfig& config, std::int64_t first, std::int64_t rows,
               std::int64_t cols, std::span<double> values) {
  const double scaling = config.scaling();
  const auto at = [](std::span<const float> matrix, std::int64_t index) {
    return static_cast<double>(matrix[static_cast<std::size_t>(index)]);
  };
  std::vector<double> sums(static_cast<std::size_t>(cols));
  for (std::int64_t row = 0; row < rows; ++row) {
    std::ranges::fill(sums, 0.0);
    for (std::int64_t k = 0; k < config.r; ++k) {
      // Stored rows are outputs, or inputs where the file holds the transpose.
      const double fixed = factors.transposed ? at(factors.a, k * factors.in + first + row)
                                              : at(factors.b, (first + row) * config.r + k);
      for (std::int64_t col = 0; col < cols; ++col) {
        const double running =
            factors.transposed ? at(factors.b, col * config.r + k) : at(factors.a, k * factors.in + col);
        sums[static_cast<std::size_t>(col)] += fixed * running;
      }
    }
    double* const value = values.data() + row * cols;
    for (std::int64_t col = 0; col < cols; ++col) value[col] += scaling * sums[static_cast<std::size_t>(col)];
  }
}

/// The type's largest finite value: beyond it, rounding gives infinity.
template <typename Value>
void check_fits(const std::vector<std::byte>& rounded, const std::vector<Value>& values, DType dtype,
                const std::string& name) {
  std::vector<float> back(values.size());
  to_float(dtype, rounded.data(), back);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) && !std::isfinite(back[i])) {
      throw InputError("{}: the value {} does not fit into {}{}", name, values[i], name_of(dtype),
                       dtype == DType::f16 ? ", expected F32 or BF16 for this model" : "");
    }
  }
}

/// Streams one weight, changed and rounded.
void write_weight(const ModelFiles& files, const TensorInfo& tensor, const WeightChange* change, DType dtype,
                  const ByteSink& sink) {
  const std::int64_t cols = tensor.row_elements();
  const std::int64_t all_rows = tensor.shape.empty() ? 1 : tensor.shape[0];
  const std::int64_t piece = std::max<std::int64_t>(1, static_cast<std::int64_t>(piece_elements) / cols);
  std::vector<float> values;
  std::vector<double> sums;
  std::vector<std::byte> rounded;
  for (std::int64_t first = 0; first < all_rows; first += piece) {
    const std::int64_t rows = std::min(piece, all_rows - first);
    values.resize(static_cast<std::size_t>(rows * cols));
    to_float(tensor, first, rows, values);
    rounded.resize(values.size() * size_of(dtype));
    if (change != nullptr) {
      sums.assign(values.begin(), values.end());
      (*change)(first, rows, cols, sums);
      from_double(sums, dtype, rounded.data());
      check_fits(rounded, sums, dtype, tensor.name);
    } else {
      from_float(values, dtype, rounded.data());
      if (dtype != DType::f32)
        check_fits(rounded, values, dtype, tensor.name);  // fp32 holds every value read
    }
    sink(rounded);
  }
  files.tensors.release(tensor);
}

std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    default:
      throw Error("a model cannot be exported as {}, expected F32, F16 or BF16", name_of(dtype));
  }
}

}  // namespace

void remove_model(const std::string& directory) {
  remove_file(directory + "/config.json");  // first: what is left at any moment is no model
  remove_model_safetensors(directory);
  for (const char* name : companions) remove_file(directory + "/" + name);
  sync_directory(directory);
}

void export_merged(const ModelFiles& files, const AdapterConfig& config, std::span<const float> values,
                   DType dtype, const std::string& directory, std::uint64_t shard_bytes, bool replace) {
  const Description& description = files.description;
  const std::map<std::string, std::span<const float>> trainables =
      values_by_name(lora_trainables(description, config), values);
  WeightChanges changes;
  for (const LinearModule& module : adapted_modules(description, config)) {
    const Factors factors{.a = trainables.at(lora_a_name(module.name)),
                          .b = trainables.at(lora_b_name(module.name)),
                          .in = module.in,
                          .transposed = module.transposed};
    changes[module.name + ".weight"] = [factors, &config](std::int64_t first, std::int64_t rows,
                                                          std::int64_t cols, std::span<double> weight) {
      add_delta(factors, config, first, rows, cols, weight);
    };
  }
  export_changed(files, changes, dtype, directory, shard_bytes, replace);
}

void export_changed(const ModelFiles& files, const WeightChanges& changes, DType dtype,
                    const std::string& directory, std::uint64_t shard_bytes, bool replace) {
  const std::string dtype_word(torch_name(dtype));
  std::vector<TensorSource> sources;
  for (const WeightSpec& spec : weight_specs(files.description)) {
    const TensorInfo& tensor = files.weight(spec.name);
    const auto found = changes.find(spec.name);
    const WeightChange* const change = found == changes.end() ? nullptr : &found->second;
    sources.push_back({.name = tensor.name,
                       .dtype = dtype,
                       .shape = tensor.shape,
                       .produce = [&files, &tensor, change, dtype](const ByteSink& sink) {
                         write_weight(files, tensor, change, dtype, sink);
                       }});
  }
  create_directories(directory);
  if (replace) remove_model(directory);
  write_model_safetensors(directory, sources, {{"format", "pt"}}, shard_bytes);

  for (const char* name : companions) {
    const std::string from = files.directory + "/" + name;
    if (file_exists(from)) write_file_atomically(directory + "/" + name, read_file(from, copied_limit));
  }
  nlohmann::json json = read_json_file(files.directory + "/config.json");
  // transformers wrote torch_dtype up to version 4 and writes dtype since; it reads either.
  const bool has_new = json.contains("dtype");
  if (has_new) json["dtype"] = dtype_word;
  if (json.contains("torch_dtype") || !has_new) json["torch_dtype"] = dtype_word;
  // Last, so that a directory with a config is a whole model.
  write_file_atomically(directory + "/config.json", json.dump(2) + "\n");
}

}  // namespace mezzo
