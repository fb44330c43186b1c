#pragma once
// Which experts rows go to and where they lie by expert (mezzo/backend/mixture.h), as
// kernels/reference/routing.h defines the choice and the sum.
//
// Places are counted through all copies: an expert's places stand together, those of copy 0 first, and within
// a copy in the order of rows.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"
#include "kernels/cuda/mixture_limits.h"

namespace mezzo::cuda {

/// In device memory, dense, one copy after another.
struct Routes {
  std::int64_t rows = 0;     ///< of a copy
  std::int64_t experts = 0;  ///< at most most_experts
  std::int64_t chosen = 0;   ///< of a row; at most most_chosen
  std::int64_t copies = 0;
  float* weights = nullptr;         ///< [copies, rows, chosen], in ascending order of experts
  std::int32_t* places = nullptr;   ///< [copies, rows, chosen], of the same experts
  std::int32_t* rows_at = nullptr;  ///< [copies * rows * chosen]: the row at each place, through all copies
  std::int32_t* begins = nullptr;   ///< [copies, experts + 1]: the first place of each copy and expert; the
                                    ///< last of each copy: the number of places

  std::int64_t places_a_copy() const { return rows * chosen; }
  std::int64_t all_places() const { return copies * rows * chosen; }
};

/// Fills weights, and places with the experts of rows. logits [copies][rows][experts] fp32. A NaN logit
/// counts as -inf for the choice and makes NaN of the weights.
cudaError_t choose_experts(Matrices logits, const Routes& routes, bool renormalised, cudaStream_t stream);
/// Turns experts into places, and fills rows_at and begins.
cudaError_t place_rows(const Routes& routes, cudaStream_t stream);

/// Rows of x, `cols` wide, to their places in out, of one type. Place g is row g % places_a_copy() of copy
/// g / places_a_copy().
cudaError_t dispatch(Matrices x, const Routes& routes, std::int64_t cols, Matrices out, cudaStream_t stream);
/// out[copy][t] = sum over j of weights[t][j] * x[places[t][j]], in ascending order of j, rounded once.
/// `copies` of out; where the routes are of one copy, a copy of x has all places.
cudaError_t combine(Matrices x, const Routes& routes, std::int64_t cols, std::int64_t copies, Matrices out,
                    cudaStream_t stream);

}  // namespace mezzo::cuda
