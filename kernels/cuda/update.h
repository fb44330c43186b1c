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
  std::int64_t quads = 0;               ///< of all
  const std::int64_t* begin = nullptr;  ///< [count + 1]
  /// [count + 1] where each tensor's quads begin: groups of four elements from its own first one on, the last
  /// maybe short; none of a tensor with noise of low rank.
  const std::int64_t* quad_begin = nullptr;
};

struct Step {
  const std::uint64_t* seeds = nullptr;  ///< [directions]
  const float* coefficients = nullptr;   ///< [directions]
  std::int64_t directions = 0;
  UpdateFactors factors;
  NoiseKind noise = NoiseKind::gaussian;
};

/// Of the tensors that have quads. `state` keeps an element for each of `values`, in their order.
cudaError_t update(float* values, const UpdateState& state, const TensorTable& tensors, const Step& step,
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
cudaError_t hash(const float* values, const TensorTable& tensors, unsigned long long* sum,
                 cudaStream_t stream);

}  // namespace mezzo::cuda
