#include "kernels/reference/activation.h"

#include <cmath>
#include <numbers>

namespace mezzo::reference {

void silu(float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = static_cast<float>(x[i] / (1.0 + std::exp(-double{x[i]})));
}

void gelu_tanh(float* x, std::int64_t count) {
  const double c = std::sqrt(2.0 / std::numbers::pi);
  for (std::int64_t i = 0; i < count; ++i) {
    const double v = x[i];
    x[i] = static_cast<float>(0.5 * v * (1.0 + std::tanh(c * (v + 0.044715 * v * v * v))));
  }
}

void gelu_erf(float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double v = x[i];
    x[i] = static_cast<float>(0.5 * v * std::erfc(-v / std::numbers::sqrt2));
  }
}

void relu(float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = x[i] < 0.0f ? 0.0f : x[i];
}

void soft_cap(float* x, std::int64_t count, float cap) {
  for (std::int64_t i = 0; i < count; ++i)
    x[i] = static_cast<float>(cap * std::tanh(x[i] / static_cast<double>(cap)));
}

void multiply(const float* gate, const float* up, std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = gate[i] * up[i];
}

}  // namespace mezzo::reference
