#pragma once
// Rotary positions and causal attention.
#include <cstdint>

#include "kernels/rows.h"
#include "kernels/scoring.h"

namespace mezzo::cpu {

/// As in kernels/reference/attention.h.
void rotate_half_split(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                       const float* cosines, const float* sines);
void rotate_interleaved(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                        const float* cosines, const float* sines);

/// Floats of scratch that `attend` needs for sequences of up to `longest` tokens: linear in the sequence.
std::int64_t attend_scratch(std::int64_t longest, std::int64_t head_dim);

/// One sequence, one key/value head and the `group` query heads that read it. Query row i, at place places[i]
/// of the sequence (i where places is null; ascending), attends to keys first_key(place)..place:
/// out = sum_j softmax_j(score q.k[j]) v[j]. q, out: row i, heads of the group side by side; k, v: row j of
/// the sequence, this head; length: rows of k.
void attend(Rows<const float> q, std::int64_t queries, const std::int32_t* places, std::int64_t group,
            Rows<const float> k, Rows<const float> v, std::int64_t length, std::int64_t head_dim,
            const Scoring& scoring, Rows<float> out, float* scratch);

}  // namespace mezzo::cpu
