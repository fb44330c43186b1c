#pragma once
// Which experts a row goes to, and the sum of what they give (mezzo/backend/mixture.h).
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::reference {

/// The `chosen` experts of the largest logits, of equal logits the lower expert, into `experts` in ascending
/// order; and their softmax, over these logits alone where `renormalised`, else over all `count`.
void choose_experts(const float* logits, std::int64_t count, std::int64_t chosen, bool renormalised,
                    std::int32_t* experts, float* weights);

/// out = sum over j of weights[j] * x[places[j]], rows of `cols`.
void combine(const float* weights, const std::int32_t* places, std::int64_t chosen, Rows<const float> x,
             std::int64_t cols, float* out);

}  // namespace mezzo::reference
