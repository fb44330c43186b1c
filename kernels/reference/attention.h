#pragma once
// Rotary positions and causal attention.
#include <cstdint>

#include "kernels/rows.h"
#include "kernels/scoring.h"

namespace mezzo::reference {

/// Rotates the first `dims` of each of `heads` heads of one row by the angles of its position (Su et al.
/// 2021). half-split: pairs are (j, j + dims/2); interleaved: (2j, 2j + 1); j < dims/2. cosines, sines:
/// [dims/2].
void rotate_half_split(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                       const float* cosines, const float* sines);
void rotate_interleaved(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                        const float* cosines, const float* sines);

/// One query row of one head, at place `last` of its sequence, over the keys j = first_key(last)..last:
/// out = sum_j softmax_j(score q.k[j]) v[j]. q and out [head_dim]; k, v: row j of the sequence, this head.
void attend(const float* q, Rows<const float> k, Rows<const float> v, std::int64_t last,
            std::int64_t head_dim, const Scoring& scoring, float* out);

}  // namespace mezzo::reference
