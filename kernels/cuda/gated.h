#pragma once
// gate and up of an MLP as one product that ends as activation(gate) * up, for cards of compute capability
// 9.0: neither of the two is in memory. activation.h has the kernel that every other card takes behind a
// product of its own.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/activation.h"

namespace mezzo::cuda {

/// bf16. x, weight, y and every row of theirs begin on multiples of 16 bytes.
struct GatedProduct {
  const void* x = nullptr;  ///< [rows, in]
  std::int64_t x_stride = 0;
  const void* weight = nullptr;  ///< [2 cols, in], gate's rows before up's
  std::int64_t weight_stride = 0;
  std::int64_t rows = 0;
  std::int64_t in = 0;
  std::int64_t cols = 0;  ///< of y: a multiple of 8
  Curve curve = Curve::none;
  void* y = nullptr;  ///< [rows, cols]
  std::int64_t y_stride = 0;
};

/// Sums in fp32, y rounded once. The logistic function's powers of two are ex2.approx's (2 ulp), its
/// reciprocals rcp.approx's (1 ulp), and what is below 2^-60 is 2^-60: a gate below -42 gives up * gate *
/// 2^-60. A row's bits depend on the row and the weight alone.
cudaError_t multiply_gated(const GatedProduct& operands, cudaStream_t stream);

}  // namespace mezzo::cuda
