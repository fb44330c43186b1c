#pragma once
// The operations of kernels/reference/routing.h for a row.
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::cpu {

void choose_experts(const float* logits, std::int64_t count, std::int64_t chosen, bool renormalised,
                    std::int32_t* experts, float* weights);

/// The products are added in the order of j, one fma each.
void combine(const float* weights, const std::int32_t* places, std::int64_t chosen, Rows<const float> x,
             std::int64_t cols, float* out);

}  // namespace mezzo::cpu
