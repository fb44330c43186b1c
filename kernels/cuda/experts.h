#pragma once
// Products of a mixture's experts, each over the places that routing.h gave it. A row's bits depend on the
// row and on its expert's weight alone, not on how many rows an expert has.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/matrices.h"
#include "kernels/cuda/tail.h"
#include "mezzo/core/noise_kind.h"

namespace mezzo::cuda {

/// Rows of x, one matrix, and whose they are: those of expert e are [begins[e], begins[e + 1]) less `first`,
/// as far as they are in [0, count).
struct ExpertRows {
  const void* x = nullptr;  ///< [count, in]
  DType dtype = DType::f32;
  std::int64_t x_stride = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  const std::int32_t* begins = nullptr;  ///< [experts + 1]
  std::int64_t experts = 0;
  /// Null, or the row of x at each place, less a multiple of `period`: x is then [period, in].
  const std::int32_t* rows_at = nullptr;
  std::int64_t period = 0;
};
/// [out, in] for each expert, of x's type.
struct ExpertWeights {
  const void* data = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t expert_stride = 0;  ///< elements from one expert's to the next's
  std::int64_t out = 0;
  std::int64_t in = 0;
};

/// y [count, out] fp32 = x W^T, for every type and width: one fma after another along a row.
cudaError_t multiply_experts(const ExpertRows& rows, const ExpertWeights& weights, float* y,
                             std::int64_t y_stride, cudaStream_t stream);

// ---- by tiles (tile_product.cuh), for cards of compute capability 9.0: bf16; x, W and every row of theirs
// begin on multiples of 16 bytes.

/// y [count, out] = x W^T, bf16 or fp32; of bf16, `out` in eights.
cudaError_t multiply_expert_tiles(const ExpertRows& rows, const ExpertWeights& weights, Matrices y,
                                  cudaStream_t stream);
/// y [count, out / 2] = curve(gate) * up, the rows of W being gate | up; gated.h says how it is computed. The
/// only one that takes rows_at, from the first place on.
cudaError_t multiply_gated_experts(const ExpertRows& rows, const ExpertWeights& weights, Curve curve,
                                   Matrices y, cudaStream_t stream);

// ---- low-rank terms: y = W x + scaling B_p s, s = A_p x, of each copy (probe) p

/// Of one expert and one part of its product; rank 0: none.
struct ExpertTail {
  const float* a = nullptr;  ///< [rank, in]; null: W's own noise, A_p = Z_A and B_p = epsilon Z_B
  const float* b = nullptr;  ///< [rows of the part, rank]; null where a is
  NoiseTensor a_noise = {};
  NoiseTensor b_noise = {};
  std::int32_t rank = 0;
  std::int32_t rank_begin = 0;  ///< its columns of s
  float scaling = 1.0f;
};
inline constexpr int most_parts = 2;
inline constexpr int tails_a_launch = 64;
/// Of experts [first, first + count), `parts` each.
struct ExpertTails {
  ExpertTail tail[tails_a_launch * most_parts];
  int first = 0;
  int count = 0;
  int parts = 1;
};

/// Whose the places are, for each copy: those of copy p and expert e are [begins[p][e], begins[p + 1][e]), of
/// the last copy up to begins[0][e + 1]; places are counted through the copies. With `shared` routes the
/// places of expert e are [begins[e], begins[e + 1]) in each copy.
struct ExpertPlaces {
  const std::int32_t* begins = nullptr;  ///< [copies or 1, experts + 1]
  std::int64_t experts = 0;
  std::int64_t a_copy = 0;  ///< places of a copy
  std::int64_t copies = 0;
  bool shared = false;
};

/// s [copies * a_copy, ranks] = A_p x.
cudaError_t project_experts(Matrices x, std::int64_t in, const ExpertPlaces& places, const ExpertTails& tails,
                            NoiseKind noise, const Perturbation* perturbations, std::int64_t ranks, float* s,
                            cudaStream_t stream);

/// base: W x of the places from `first` on, `count` of them, counted as ExpertPlaces counts them; y of the
/// copies from `copy` on, `copies` of them: base plus the tails, or curve(part 0) * part 1 of them where
/// gated, rounded once. s may be null where there are no tails.
struct ExpertFinish {
  const float* base = nullptr;  ///< [count, parts * cols]
  std::int64_t base_stride = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t copy = 0;
  std::int64_t copies = 0;
  bool gated = false;
  Curve curve = Curve::none;
  const float* s = nullptr;
  std::int64_t ranks = 0;
  std::int64_t cols = 0;  ///< of y
  Matrices y;             ///< [a_copy, cols] for each copy
};
cudaError_t finish_experts(const ExpertFinish& operands, const ExpertPlaces& places, const ExpertTails& tails,
                           NoiseKind noise, const Perturbation* perturbations, cudaStream_t stream);

}  // namespace mezzo::cuda
