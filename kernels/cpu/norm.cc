#include "kernels/cpu/norm.h"

#include <cmath>

#include "kernels/cpu/simd.h"

namespace mezzo::cpu {
namespace {

using namespace simd;

/// Sum of term(eight values, lanes that count) over a row, in four chains that are added in pairs. Lanes
/// beyond the row are 0 in what `term` gets and must be 0 in what it returns.
template <typename Term>
float sum_over(const float* h, std::int64_t cols, Term term) {
  const __m256i all = mask_of(width);
  Float8 chain[4] = {broadcast(0.0f), broadcast(0.0f), broadcast(0.0f), broadcast(0.0f)};
  std::int64_t j = 0;
  for (; j + 4 * width <= cols; j += 4 * width) {
    for (std::int64_t c = 0; c < 4; ++c) chain[c] = term(load(h + j + c * width), all, chain[c]);
  }
  for (; j + width <= cols; j += width) chain[0] = term(load(h + j), all, chain[0]);
  if (j < cols) {
    const __m256i mask = mask_of(cols - j);
    chain[1] = term(load(h + j, mask), mask, chain[1]);
  }
  return sum(_mm256_add_ps(_mm256_add_ps(chain[0], chain[1]), _mm256_add_ps(chain[2], chain[3])));
}

float inverse_root(float squares, std::int64_t cols, float epsilon) {
  return 1.0f / std::sqrt(squares / static_cast<float>(cols) + epsilon);
}

}  // namespace

void rms_norm(const float* h, std::int64_t cols, const float* weight, float epsilon, float* x) {
  const float squares = sum_over(h, cols, [](Float8 v, __m256i, Float8 total) { return fma(v, v, total); });
  const float scale = inverse_root(squares, cols, epsilon);
#pragma omp simd
  for (std::int64_t j = 0; j < cols; ++j) x[j] = h[j] * scale * weight[j];
}

void layer_norm(const float* h, std::int64_t cols, const float* weight, const float* bias, float epsilon,
                float* x) {
  const float total = sum_over(h, cols, [](Float8 v, __m256i, Float8 t) { return _mm256_add_ps(t, v); });
  const float mean = total / static_cast<float>(cols);
  const float squares = sum_over(h, cols, [mean](Float8 v, __m256i mask, Float8 t) {
    const Float8 centred = _mm256_and_ps(_mm256_sub_ps(v, broadcast(mean)), _mm256_castsi256_ps(mask));
    return fma(centred, centred, t);
  });
  const float scale = inverse_root(squares, cols, epsilon);
  if (bias == nullptr) {
#pragma omp simd
    for (std::int64_t j = 0; j < cols; ++j) x[j] = (h[j] - mean) * scale * weight[j];
  } else {
#pragma omp simd
    for (std::int64_t j = 0; j < cols; ++j) x[j] = (h[j] - mean) * scale * weight[j] + bias[j];
  }
}

}  // namespace mezzo::cpu
