#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"

namespace mezzo::cuda {

/// logits: rows [first, first + count) of all copies as they lie one after another, `copy_rows` a copy (0:
/// all copies share them); bias [vocabulary] is added to each, or null.
struct Logits {
  const float* data = nullptr;
  std::int64_t stride = 0;
  std::int64_t vocabulary = 0;
  const void* bias = nullptr;
  DType bias_dtype = DType::f32;
  float soft_cap = 0.0f;  ///< c of c tanh(logit / c), the bias in it; 0: none
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t copy_rows = 0;
  std::int64_t rows = 0;  ///< of a copy
};

/// totals[i] = log sum_v exp(logits[i][v] + bias[v]), i < logits.count.
cudaError_t log_sum_exp(const Logits& logits, double* totals, cudaStream_t stream);

/// out[copy][j] = logits[row target_rows[j] of the copy][target_tokens[j]] - its total, for the
/// targets whose row is among these logits; out fp32.
cudaError_t answer(const Logits& logits, const double* totals, const std::int32_t* target_rows,
                   const std::int32_t* target_tokens, std::int64_t targets, std::int64_t copies, Matrices out,
                   std::uint32_t* fault, cudaStream_t stream);

}  // namespace mezzo::cuda
