#pragma once
// Residual sums and normalisation over a row.
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::reference {

/// y += x, `count` elements.
void add(const float* x, std::int64_t count, float* y);

/// x[j] = h[j] / sqrt(mean(h^2) + epsilon) * weight[j] (Zhang and Sennrich 2019).
void rms_norm(const float* h, std::int64_t cols, const float* weight, float epsilon, float* x);

/// x[j] = (h[j] - mean) / sqrt(variance + epsilon) * weight[j] + bias[j] (Ba et al. 2016; the variance
/// divides by cols). `bias` may be null.
void layer_norm(const float* h, std::int64_t cols, const float* weight, const float* bias, float epsilon,
                float* x);

}  // namespace mezzo::reference
