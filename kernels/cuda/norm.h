#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"

namespace mezzo::cuda {

/// h_out = h_in + deltas, in order; x = norm(h_out), as kernels/reference/norm.h defines both norms. The
/// residual stream h is fp32; deltas and x are of one type. h_in may be of that
/// type, too, and then be x.
struct ResidualNorm {
  Matrices h_in;
  Matrices delta[2];
  int deltas = 0;
  Matrices h_out;  ///< not stored where it has no data; may be h_in
  bool layer = false;
  const float* weight = nullptr;  ///< [cols]
  const float* bias = nullptr;    ///< [cols], or null
  float epsilon = 0.0f;
  Matrices x;
};
cudaError_t residual_norm(const ResidualNorm& operands, std::int64_t rows, std::int64_t cols,
                          std::int64_t copies, cudaStream_t stream);

/// x [rows, heads * head_dim] = the norm of each head's columns, in place.
struct HeadNorm {
  Matrices x;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;  ///< at most 256
  bool layer = false;
  const float* weight = nullptr;  ///< [head_dim]
  const float* bias = nullptr;    ///< [head_dim], or null
  float epsilon = 0.0f;
};
cudaError_t norm_heads(const HeadNorm& operands, std::int64_t rows, std::int64_t copies, cudaStream_t stream);

}  // namespace mezzo::cuda
