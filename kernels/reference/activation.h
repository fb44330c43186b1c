#pragma once
// Activations, in place over `count` elements.
#include <cstdint>

namespace mezzo::reference {

void silu(float* x, std::int64_t count);  ///< x / (1 + exp(-x))
void gelu_tanh(float* x,
               std::int64_t count);           ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), GPT-2's form
void gelu_erf(float* x, std::int64_t count);  ///< x/2 (1 + erf(x / sqrt(2))) (Hendrycks and Gimpel 2016)
void relu(float* x, std::int64_t count);      ///< max(x, 0); NaN stays NaN

/// cap tanh(x / cap) (Gemma Team 2024, soft-capping).
void soft_cap(float* x, std::int64_t count, float cap);

/// y = gate * up, elementwise.
void multiply(const float* gate, const float* up, std::int64_t count, float* y);

}  // namespace mezzo::reference
