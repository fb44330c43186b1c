#pragma once
// The update and the in-run hash of mezzo/core/update.h, over all tensors at once: tensor i is the elements
// [begin[i], begin[i + 1]) of `values`.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "mezzo/core/noise_kind.h"
#include "mezzo/core/update.h"

namespace mezzo::cuda {

struct TensorTable {
  std::int64_t count = 0;               ///< tensors
  std::int64_t elements = 0;            ///< of all
  std::int64_t groups = 0;              ///< of all
  const std::int64_t* begin = nullptr;  ///< [count + 1]
  /// [count + 1] where each tensor's groups begin: group_elements from its own first one on, the last maybe
  /// fewer; none of a tensor with noise of low rank.
  const std::int64_t* group_begin = nullptr;
};

/// What a thread updates: elements that share a block of rounding.
inline constexpr std::int64_t group_elements = 8;

struct Step {
  const std::uint64_t* seeds = nullptr;  ///< [directions]
  const float* coefficients = nullptr;   ///< [directions]
  std::int64_t directions = 0;
  UpdateFactors factors;
  NoiseKind noise = NoiseKind::gaussian;
  StepRounding rounding;
};

/// Of the tensors that have groups. `values` in fp32 or bf16 (std::uint16_t); `state` keeps an element for
/// each of them, in their order.
template <typename Master>
cudaError_t update(Master* values, const UpdateState& state, const TensorTable& tensors, const Step& step,
                   cudaStream_t stream);

/// A matrix [rows, cols] with noise of low rank, at `values`.
struct OuterTensor {
  TensorNoise noise;
  std::int64_t rows = 0;

  /// Floats of all directions' factors: for each U [rows, rank], then V^T [rank, cols].
  std::int64_t factor_floats(std::int64_t directions) const {
    return directions * noise.rank * (rows + noise.cols);
  }
};

/// The update of one such tensor; `state` is its part. Writes the factors into `factors` first.
cudaError_t update_outer(float* values, const UpdateState& state, const OuterTensor& tensor, const Step& step,
                         float* factors, cudaStream_t stream);

/// *sum += every element's share of the hash.
template <typename Master>
cudaError_t hash(const Master* values, const TensorTable& tensors, unsigned long long* sum,
                 cudaStream_t stream);

}  // namespace mezzo::cuda
