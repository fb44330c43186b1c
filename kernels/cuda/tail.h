#pragma once
// The low-rank tails of a product and its last stage:
//   y = activation(W x + bias + scaling B_p s),  s = A_p x,  A_p = A + epsilon Z_A,  B_p = B + epsilon Z_B
// for each copy p, W x given. Everything is fp32 and y is rounded once. Z is mezzo/core/noise.h's.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/matrices.h"
#include "mezzo/core/noise.h"

namespace mezzo::cuda {

/// Who perturbs: as in device memory, one entry a copy.
struct Perturbation {
  std::uint64_t seed;
  std::uint32_t direction;
  float epsilon;  ///< signed; 0: the factors as they are

  /// What the noise of a factor is multiplied by.
  MEZZO_HOST_DEVICE float factor_epsilon(bool unscaled) const {
    return unscaled && epsilon != 0.0f ? 1.0f : epsilon;
  }
};

/// One factor of a tail and where its perturbed copies go: floats [begin, begin + count) of each copy's
/// share.
struct Factor {
  const float* value = nullptr;  ///< dense; null: zeros
  NoiseTensor tensor = {};
  bool unscaled = false;  ///< its noise is not multiplied by epsilon, where that is not 0
  std::int64_t count = 0;
  std::int64_t begin = 0;
};
inline constexpr int most_factors = 8;
struct Factors {
  Factor factor[most_factors];
  int count = 0;
};

/// out[copy * copy_stride + begin + i] = fma(epsilon of the copy or 1, z, value[i]) for every factor.
cudaError_t perturb(const Factors& factors, NoiseKind noise, const Perturbation* perturbations,
                    std::int64_t copies, float* out, std::int64_t copy_stride, cudaStream_t stream);

/// s[copy][row][rank] = sum_j a[copy * a_copy_stride + rank * in + j] x[copy][row][j]; s
/// [copies][rows][ranks].
cudaError_t project(Matrices x, std::int64_t rows, std::int64_t in, const float* a,
                    std::int64_t a_copy_stride, std::int64_t ranks, std::int64_t copies, float* s,
                    cudaStream_t stream);

/// Columns of W x that belong to one part of a product, and its tail.
struct Column {
  std::int64_t begin = 0;      ///< in `base`
  const void* bias = nullptr;  ///< of these columns, or null
  DType bias_dtype = DType::f32;
  std::int64_t rank = 0;        ///< 0: no tail
  std::int64_t rank_begin = 0;  ///< its first column of s
  const float* b = nullptr;     ///< copy 0's B_p, [columns, rank]
  float scaling = 1.0f;
};

/// Rows [first, first + count) of all copies, as they lie one copy after another, `base_rows` a copy;
/// base_rows 0: all copies share W x and the range is one of rows. Row f of that order is base's row f -
/// first.
struct Finish {
  const float* base = nullptr;
  std::int64_t base_stride = 0;
  std::int64_t base_rows = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  Column column[2];  ///< the second only where gated: y = curve(first) * second
  bool gated = false;
  Curve curve = Curve::none;
  const float* s = nullptr;  ///< [copies][rows][ranks]
  std::int64_t ranks = 0;
  std::int64_t b_copy_stride = 0;
  std::int64_t rows = 0;  ///< of a copy
  std::int64_t cols = 0;  ///< of y
  Matrices y;
};
cudaError_t finish(const Finish& operands, std::int64_t copies, cudaStream_t stream);

}  // namespace mezzo::cuda
