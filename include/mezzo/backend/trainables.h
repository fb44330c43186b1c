#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mezzo/backend/buffer.h"
#include "mezzo/core/types.h"
#include "mezzo/core/update.h"

namespace mezzo {

/// One named matrix that training changes.
struct Trainable {
  std::string name;  ///< its key in adapter_model.safetensors
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t offset = 0;      ///< first element in Trainables::values
  std::int64_t noise_rank = 0;  ///< 0: noise of its elements; else of low rank (mezzo/core/noise.h)

  std::int64_t count() const { return rows * cols; }
  /// Its noise, where its place in the list is `id`.
  TensorNoise noise(std::size_t id) const { return {static_cast<std::uint32_t>(id), noise_rank, cols}; }
};

/// All trainables, in bytewise order of their names: the place in `list` is the tensor id that noise depends
/// on. Values lie one after another, without gaps, in the backend's memory.
struct Trainables {
  std::vector<Trainable> list;
  DType dtype = DType::f32;  ///< f32, or bf16 where updates round stochastically
  Buffer values;             ///< [count()] of `dtype`; empty where only sizes matter

  std::int64_t count() const { return list.empty() ? 0 : list.back().offset + list.back().count(); }
  /// [1, count()].
  View all() const { return dense(values.data(), dtype, 1, count()); }
  View view(std::size_t id) const {
    auto* const first = static_cast<std::byte*>(values.data());
    const std::size_t begin = static_cast<std::size_t>(list[id].offset) * size_of(dtype);
    return dense(first == nullptr ? nullptr : first + begin, dtype, list[id].rows, list[id].cols);
  }
};

/// DeviceError unless trainables may be held in it: fp32 or bf16.
void check_master(DType dtype);

/// One update of all trainables, in the words of mezzo/core/update.h.
struct UpdateStep {
  std::vector<std::uint64_t> seeds;  ///< [N] directions in ascending order
  std::vector<float> coefficients;   ///< [N] g_k over the number of good directions; 0 for a dropped one
  UpdateFactors factors = {};
  StepRounding rounding = {};  ///< of trainables in bf16
};

/// call(pointer to the first value): float* or, of bf16, std::uint16_t*. DeviceError for another type.
template <typename Call>
auto with_masters(const View& values, const Call& call) {
  if (values.dtype == DType::bf16) return call(values.as<std::uint16_t>());
  check_master(values.dtype);
  return call(values.as<float>());
}

/// Where an update keeps what it keeps of the trainables: in the values of `state`, one array of the
/// trainables' length (a scalar second moment: of a number a tensor) after another, for each of UpdateState's
/// members that `factors` need, in its order. DeviceError where `state` has another length.
UpdateState update_state(const UpdateFactors& factors, const Trainables& trainables, Trainables& state);
/// The part of the tensor `id`.
UpdateState state_of(const UpdateState& all, const UpdateFactors& factors, const Trainables& trainables,
                     std::size_t id);

}  // namespace mezzo
