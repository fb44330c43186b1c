#pragma once
// The low-rank terms of a product as extra columns of x and W, so that one matrix product does
//   y = W x + scaling B_p s,   s = A_p x,   A_p = A + e Z_A,   B_p = B + e Z_B   (e: the copy's epsilon)
// in bf16: behind its `in` columns a row of x holds s twice, as a high and a low part, and e s in the block
// of its direction's block; a row of W holds B twice and in each direction's block Z_B:
//   x: | x | high(s) | low(s) |  0   ...  e s  ...  0  |      s with the scaling in it
//   W: | W |    B    |   B    | Z_B of direction block 0, 1, ...  |
// Where W's own noise is what perturbs there is no B, and the first two blocks are left out.
// No perturbation is rounded into a weight. Zeros add nothing: a row's y does not depend on how many
// direction blocks there are, nor on which is its own, as long as each starts on a multiple of 16 columns.
//
// A product's tails share these columns: ranks are counted through all of its parts, and in a part's rows of
// W the columns of other parts' ranks are zero.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"
#include "kernels/cuda/tail.h"
#include "kernels/cuda/tail_columns.h"
#include "mezzo/core/noise_kind.h"

namespace mezzo::cuda {

/// One tail: its ranks are [rank_begin, rank_begin + rank).
struct LowRank {
  const float* a = nullptr;  ///< [rank, in]; null: W's own noise, A_p = Z_A and B_p = e Z_B
  const float* b = nullptr;  ///< [rows, rank]; null where a is
  NoiseTensor a_noise = {};
  NoiseTensor b_noise = {};
  std::int64_t rank_begin = 0;
  std::int64_t rank = 0;
  float scaling = 1.0f;
  std::int64_t row_begin = 0;  ///< rows of W, counted from the first one of expand()
  std::int64_t rows = 0;
};
inline constexpr int most_tails = 4;
struct LowRanks {
  LowRank tail[most_tails];
  int count = 0;
};

/// Writes the factors that project_*() read. `first_probe` [direction_blocks]: a copy that has the block's
/// direction. `in` is a multiple of 8.
cudaError_t project_factors(const LowRanks& tails, std::int64_t ranks, std::int64_t in, NoiseKind noise,
                            const Perturbation* perturbations, const std::int32_t* first_probe,
                            std::int64_t direction_blocks, void* factors, cudaStream_t stream);

/// Fills the columns behind the `in` of x [copies][rows][in + columns.width()], bf16. `direction_block`
/// [copies]: the direction's block in `factors`; its place is that block mod blocks_a_range, at most
/// columns.direction_blocks.
cudaError_t project_columns(Matrices x, std::int64_t rows, std::int64_t in, std::int64_t copies,
                            const LowRanks& tails, const TailColumns& columns,
                            const Perturbation* perturbations, const std::int32_t* direction_block,
                            std::int64_t blocks_a_range, const void* factors, cudaStream_t stream);

/// s [copies][rows][ranks] = A_p x in fp32, where x, bf16, has no room for it or is the same for all copies.
cudaError_t project_apart(Matrices x, std::int64_t rows, std::int64_t in, std::int64_t copies,
                          const LowRanks& tails, std::int64_t ranks, const Perturbation* perturbations,
                          const std::int32_t* direction_block, const void* factors, float* s,
                          cudaStream_t stream);

/// Fills the columns behind the `in` of `rows` rows of W, bf16, with B and the Z_B of `direction_blocks`
/// blocks from the one on whose first probe is first_probe[0].
cudaError_t expand(void* weight, std::int64_t row_stride, std::int64_t rows, std::int64_t in,
                   const LowRanks& tails, const TailColumns& columns, NoiseKind noise,
                   const Perturbation* perturbations, const std::int32_t* first_probe,
                   std::int64_t direction_blocks, cudaStream_t stream);

}  // namespace mezzo::cuda
