#pragma once
// Looking up and copying rows.
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::cpu {

/// y[i] = x[i] for rows of `cols`.
void copy_rows(Rows<const float> x, std::int64_t rows, std::int64_t cols, Rows<float> y);

/// y = x0 + x1, elementwise; y may be x0 or x1.
void add(const float* x0, const float* x1, std::int64_t count, float* y);

}  // namespace mezzo::cpu
