#include "whole_tensors.h"

#include <cmath>

#include "mezzo/core/error.h"
#include "mezzo/io/convert.h"
#include "mezzo/model/merged.h"

namespace mezzo {

std::map<std::string, WeightSpec> tensors_of(const Description& description) {
  std::map<std::string, WeightSpec> tensors;
  for (const WeightSpec& spec : weight_specs(description)) tensors[spec.name] = spec;
  return tensors;
}

std::vector<float> WholeTensorsSpace::initial_values(std::uint64_t, const std::string& model) const {
  const ModelFiles files(model);
  check_model(files.description, model);
  const std::map<std::string, WeightSpec> tensors = tensors_of(files.description);
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(element_count(trainables())));
  std::vector<float> stored;
  for (const TrainableSpec& spec : trainables()) {
    const TensorInfo& tensor = files.weight(spec.name);
    stored.resize(static_cast<std::size_t>(spec.count()));
    to_float(tensor, stored);
    files.tensors.release(tensor);
    const bool transposed = tensors.at(spec.name).transposed;
    for (std::int64_t i = 0; transposed && i < spec.rows; ++i) {
      for (std::int64_t j = 0; j < spec.cols; ++j)
        values.push_back(stored[static_cast<std::size_t>(j * spec.rows + i)]);
    }
    if (!transposed) values.insert(values.end(), stored.begin(), stored.end());
  }
  return values;
}

void WholeTensorsSpace::check_model(const Description& description, const std::string& model) const {
  if (trainables_of(description) != trainables())
    throw InputError("{}: the trained weights do not belong to this model", model);
}

void WholeTensorsSpace::check_trainables_of(const Description& description) const {
  if (trainables_of(description) != trainables())
    throw Error("the trainables are not the tensors that the space selects in this model");
}

void WholeTensorsSpace::write_adapter(const std::string&, const Description&, std::span<const float>,
                                      const std::string&) const {
  refuse_adapter();
}

std::vector<float> WholeTensorsSpace::read_adapter(const std::string&) const { refuse_adapter(); }

void WholeTensorsSpace::refuse_adapter() const {
  throw UsageError("zo.space: {} trains whole weights, which no adapter holds; take the merged model instead",
                   kind());
}

void WholeTensorsSpace::write_merged(const ModelFiles& files, std::span<const float> values, DType dtype,
                                     const std::string& directory, bool overwrite) const {
  const std::map<std::string, WeightSpec> tensors = tensors_of(files.description);
  const std::map<std::string, std::span<const float>> by_name = values_by_name(trainables(), values);
  WeightChanges changes;
  for (const TrainableSpec& spec : trainables()) {
    const std::span<const float> trained = by_name.at(spec.name);
    const bool transposed = tensors.at(spec.name).transposed;
    changes[spec.name] = [trained, transposed, in = spec.cols](std::int64_t first, std::int64_t rows,
                                                               std::int64_t cols, std::span<double> stored) {
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) {
          const std::int64_t from = transposed ? j * in + first + i : (first + i) * cols + j;
          stored[static_cast<std::size_t>(i * cols + j)] = trained[static_cast<std::size_t>(from)];
        }
      }
    };
  }
  export_changed(files, changes, dtype, directory, default_shard_bytes, overwrite);
}

std::vector<UpdateSize> WholeTensorsSpace::update_sizes(const ModelFiles& files, std::span<const float> start,
                                                        std::span<const float> values) const {
  const std::map<std::string, std::span<const float>> before = values_by_name(trainables(), start);
  const std::map<std::string, std::span<const float>> now = values_by_name(trainables(), values);
  std::vector<UpdateSize> sizes;
  for (const WeightSpec& tensor : weight_specs(files.description)) {
    const auto found = before.find(tensor.name);
    if (found == before.end()) continue;
    const std::span<const float> old = found->second;
    const std::span<const float> trained = now.at(tensor.name);
    if (sizes.empty() || sizes.back().module != tensor.module)
      sizes.push_back({.module = tensor.module, .layer = tensor.layer});
    double moved = sizes.back().update * sizes.back().update;  // sums of squares
    double kept = sizes.back().weight * sizes.back().weight;
    for (std::size_t i = 0; i < old.size(); ++i) {
      const double difference = static_cast<double>(trained[i]) - static_cast<double>(old[i]);
      moved += difference * difference;
      kept += static_cast<double>(old[i]) * static_cast<double>(old[i]);
    }
    sizes.back().update = std::sqrt(moved);
    sizes.back().weight = std::sqrt(kept);
  }
  return sizes;
}

}  // namespace mezzo
