#pragma once
// Activations, in place over `count` elements, as in kernels/reference/activation.h.
#include <cstdint>

namespace mezzo::cpu {

void silu(float* x, std::int64_t count);
void gelu_tanh(float* x, std::int64_t count);
void gelu_erf(float* x, std::int64_t count);  ///< by libm's erfc, an element at a time
void relu(float* x, std::int64_t count);

/// cap tanh(scale x / cap).
void soft_cap(float* x, std::int64_t count, float scale, float cap);

/// y = gate * up, elementwise.
void multiply(const float* gate, const float* up, std::int64_t count, float* y);
/// y = silu(gate) * up, in one pass.
void silu_multiply(const float* gate, const float* up, std::int64_t count, float* y);

}  // namespace mezzo::cpu
