#include "kernels/cpu/rows.h"

#include <cstring>

namespace mezzo::cpu {

void copy_rows(Rows<const float> x, std::int64_t rows, std::int64_t cols, Rows<float> y) {
  for (std::int64_t i = 0; i < rows; ++i) {
    std::memcpy(y.row(i), x.row(i), static_cast<std::size_t>(cols) * sizeof(float));
  }
}

void add(const float* x0, const float* x1, std::int64_t count, float* y) {
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j) y[j] = x0[j] + x1[j];
}

}  // namespace mezzo::cpu
