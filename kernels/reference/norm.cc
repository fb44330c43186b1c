#include "kernels/reference/norm.h"

#include <cmath>

namespace mezzo::reference {

void add(const float* x, std::int64_t count, float* y) {
  for (std::int64_t j = 0; j < count; ++j) y[j] += x[j];
}

void rms_norm(const float* h, std::int64_t cols, const float* weight, float epsilon, float* x) {
  double squares = 0.0;
  for (std::int64_t j = 0; j < cols; ++j) squares += double{h[j]} * h[j];
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(cols) + epsilon);
  for (std::int64_t j = 0; j < cols; ++j) x[j] = static_cast<float>(h[j] * scale * weight[j]);
}

void layer_norm(const float* h, std::int64_t cols, const float* weight, const float* bias, float epsilon,
                float* x) {
  double sum = 0.0;
  for (std::int64_t j = 0; j < cols; ++j) sum += h[j];
  const double mean = sum / static_cast<double>(cols);
  double squares = 0.0;
  for (std::int64_t j = 0; j < cols; ++j) squares += (h[j] - mean) * (h[j] - mean);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(cols) + epsilon);
  for (std::int64_t j = 0; j < cols; ++j) {
    x[j] = static_cast<float>((h[j] - mean) * scale * weight[j] + (bias != nullptr ? bias[j] : 0.0f));
  }
}

}  // namespace mezzo::reference
