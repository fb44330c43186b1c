#pragma once
// Rotary positions and causal attention.
#include <cstdint>
#include <span>

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

/// Keys and values of consecutive tokens, one head's.
struct KeyRows {
  Rows<const float> k, v;
  std::int64_t count = 0;
};

/// Floats of scratch that `attend_row` needs for `length` keys.
std::int64_t attend_row_scratch(std::int64_t length);

/// The last token of a sequence, whose keys lie in several pieces one behind the other, and the `group` query
/// heads that read this key/value head: q and out [group * head_dim]. Bits depend on the keys in their order,
/// not on where the pieces end.
void attend_row(const float* q, std::int64_t group, std::span<const KeyRows> pieces, std::int64_t head_dim,
                const Scoring& scoring, float* out, float* scratch);

}  // namespace mezzo::cpu
