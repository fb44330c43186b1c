#pragma once
// Trainables on the host and their way into a backend's memory and back. Values are one vector<float>: all
// tensors in bytewise order of their names, each row-major, without gaps, as in Trainables::values.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "mezzo/backend/backend.h"

namespace mezzo {

/// A named fp32 matrix that training changes, or that an optimizer keeps: its name, shape and noise alone.
struct TrainableSpec {
  std::string name;  ///< of a trainable: its key in adapter_model.safetensors
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t noise_rank = 0;  ///< as Trainable::noise_rank

  std::int64_t count() const { return rows * cols; }
  bool operator==(const TrainableSpec&) const = default;
};

/// Elements of all.
std::int64_t element_count(std::span<const TrainableSpec> specs);

/// Each tensor's part of `values`, by its name. Error unless `values` are those of all.
std::map<std::string, std::span<const float>> values_by_name(std::span<const TrainableSpec> specs,
                                                             std::span<const float> values);

/// The list alone, without values: for sizes.
Trainables list_trainables(std::span<const TrainableSpec> specs, DType dtype = DType::f32);
/// Places values in a backend's memory, rounded to `dtype` (F32 or BF16); no memory is taken for none.
Trainables make_trainables(Backend& backend, std::span<const TrainableSpec> specs,
                           std::span<const float> values, DType dtype = DType::f32);
/// And back. Waits.
std::vector<float> read_values(Backend& backend, const Trainables& trainables);

/// SHA-256 over all values, row-major little-endian fp32 in bytewise order of the names: one number for
/// adapter, snapshot and run of the same step.
std::string trainables_sha256(std::span<const float> values);

}  // namespace mezzo
