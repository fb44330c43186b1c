#pragma once
// The vocabulary's log-probabilities without logits in memory, for cards of compute capability 9.0: a product
// whose tiles end as sums of their own exponentials. score.h has the kernels that every other card takes,
// over logits from a product of its own.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"
#include "kernels/cuda/tiles.h"

namespace mezzo::cuda {

/// Rows [first, first + count) of all copies as they lie one after another, `copy_rows` a copy (0: all copies
/// share them), times the head's weight. x, weight and every row of theirs begin on multiples of 16 bytes.
struct Head {
  const void* x = nullptr;  ///< row `first`; [count, in], bf16
  std::int64_t x_stride = 0;
  const void* weight = nullptr;  ///< [vocabulary, in], bf16
  std::int64_t weight_stride = 0;
  std::int64_t in = 0;
  std::int64_t vocabulary = 0;
  const void* bias = nullptr;  ///< [vocabulary], or null
  DType bias_dtype = DType::f32;
  float soft_cap = 0.0f;  ///< c of c tanh(logit / c); 0: none
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t copy_rows = 0;
  std::int64_t rows = 0;  ///< of a copy
};

/// Target j is for token tokens[j] in row loss_rows[j] of each copy. Those of row i, in any order, are
/// row_targets[k] for row_begins[i] <= k < row_begins[i + 1]; targets of rows that are not there are not
/// in the list.
struct Targets {
  const std::int32_t* loss_rows = nullptr;    ///< [count]
  const std::int32_t* tokens = nullptr;       ///< [count]
  const std::int32_t* row_begins = nullptr;   ///< [rows + 1]
  const std::int32_t* row_targets = nullptr;  ///< [row_begins[rows]]
  std::int64_t count = 0;
};

/// logits = cap(x weight^T + bias), fp32 and in registers alone. out[copy][j] = the logit that target j asks
/// for, for the targets whose row is among these; the sums of the rows' exponentials, a tile of columns at
/// a time, to `sums` [count, head_sums(vocabulary)]. A row's bits depend on the row and the weight alone.
/// What a copy shares with all others is written to out's first. A logit of 2^127 or more counts as infinite.
cudaError_t sum_logits(const Head& head, const Targets& targets, float* sums, Matrices out,
                       cudaStream_t stream);

/// out[copy][j] = the logit that sum_logits left there - log of the sum over its row's exponentials, for the
/// targets whose row is among these, in each of `copies` copies. NaN where a logit of the row is NaN or
/// infinite, or all of them are -inf.
cudaError_t answer(const Head& head, const Targets& targets, const float* sums, std::int64_t copies,
                   Matrices out, std::uint32_t* fault, cudaStream_t stream);

}  // namespace mezzo::cuda
