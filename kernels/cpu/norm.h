#pragma once
// Normalisation over a row, as in kernels/reference/norm.h. x may be h.
#include <cstdint>

namespace mezzo::cpu {

void rms_norm(const float* h, std::int64_t cols, const float* weight, float epsilon, float* x);

/// `bias` may be null.
void layer_norm(const float* h, std::int64_t cols, const float* weight, const float* bias, float epsilon,
                float* x);

}  // namespace mezzo::cpu
