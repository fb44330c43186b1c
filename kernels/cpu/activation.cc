#include "kernels/cpu/activation.h"

#include <cmath>
#include <numbers>

#include "kernels/cpu/simd.h"

namespace mezzo::cpu {
namespace {

using namespace simd;

/// x / (1 + exp(-u))
Float8 times_sigmoid(Float8 x, Float8 u) {
  const Float8 minus_u = _mm256_xor_ps(u, broadcast(-0.0f));
  return _mm256_div_ps(x, _mm256_add_ps(broadcast(1.0f), exp(minus_u)));
}

/// x/2 (1 + tanh(v)) = x / (1 + exp(-2 v)).
Float8 gelu_tanh(Float8 x) {
  constexpr double twice_root = 2.0 * 0.7978845608028654;  // 2 sqrt(2/pi)
  const Float8 square = _mm256_mul_ps(x, x);
  const Float8 inner = fma(square, broadcast(static_cast<float>(0.044715 * twice_root)),
                           broadcast(static_cast<float>(twice_root)));
  return times_sigmoid(x, _mm256_mul_ps(x, inner));
}

template <typename F>
void in_place(float* x, std::int64_t count, F f) {
  for_each(
      count, [&](std::int64_t j) { store(x + j, f(load(x + j))); },
      [&](std::int64_t j, __m256i mask) { store(x + j, mask, f(load(x + j, mask))); });
}

}  // namespace

void silu(float* x, std::int64_t count) {
  in_place(x, count, [](Float8 v) { return times_sigmoid(v, v); });
}

void gelu_tanh(float* x, std::int64_t count) {
  in_place(x, count, [](Float8 v) { return gelu_tanh(v); });
}

void gelu_erf(float* x, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) {
    x[j] = 0.5f * x[j] * std::erfc(x[j] * static_cast<float>(-1.0 / std::numbers::sqrt2));
  }
}

void relu(float* x, std::int64_t count) {
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j) x[j] = x[j] < 0.0f ? 0.0f : x[j];
}

void soft_cap(float* x, std::int64_t count, float scale, float cap) {
  // tanh(v) = 1 - 2 / (exp(2v) + 1)
  const Float8 factor = broadcast(2.0f * scale / cap);
  const Float8 one = broadcast(1.0f);
  in_place(x, count, [&](Float8 v) {
    const Float8 e = exp(_mm256_mul_ps(factor, v));
    const Float8 share = _mm256_div_ps(broadcast(2.0f), _mm256_add_ps(e, one));
    return _mm256_mul_ps(broadcast(cap), _mm256_sub_ps(one, share));
  });
}

void multiply(const float* gate, const float* up, std::int64_t count, float* y) {
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j) y[j] = gate[j] * up[j];
}

void silu_multiply(const float* gate, const float* up, std::int64_t count, float* y) {
  const auto f = [](Float8 g, Float8 u) { return _mm256_mul_ps(times_sigmoid(g, g), u); };
  for_each(
      count, [&](std::int64_t j) { store(y + j, f(load(gate + j), load(up + j))); },
      [&](std::int64_t j, __m256i mask) { store(y + j, mask, f(load(gate + j, mask), load(up + j, mask))); });
}

}  // namespace mezzo::cpu
