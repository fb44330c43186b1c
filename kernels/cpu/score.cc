#include "kernels/cpu/score.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/simd.h"

namespace mezzo::cpu {

using namespace simd;

ExpSum exp_sum(const float* logits, std::int64_t count) {
  Float8 top = broadcast(-__builtin_inff());
  for_each(
      count, [&](std::int64_t j) { top = _mm256_max_ps(top, load(logits + j)); },
      [&](std::int64_t j, __m256i mask) {
        top = _mm256_max_ps(top, _mm256_blendv_ps(top, load(logits + j, mask), _mm256_castsi256_ps(mask)));
      });
  const float largest = max(top);
  const Float8 shift = broadcast(largest);
  // Four chains, so that the error of the sum grows with a quarter of the length.
  Float8 chain[4] = {broadcast(0.0f), broadcast(0.0f), broadcast(0.0f), broadcast(0.0f)};
  const auto term = [shift](Float8 logit) { return exp(_mm256_sub_ps(logit, shift)); };
  const std::int64_t whole = count / (4 * width) * (4 * width);
  for (std::int64_t j = 0; j < whole; j += 4 * width) {
    for (std::int64_t c = 0; c < 4; ++c)
      chain[c] = _mm256_add_ps(chain[c], term(load(logits + j + c * width)));
  }
  for_each(
      count - whole,
      [&](std::int64_t j) { chain[0] = _mm256_add_ps(chain[0], term(load(logits + whole + j))); },
      [&](std::int64_t j, __m256i mask) {
        const Float8 e = term(load(logits + whole + j, mask));
        chain[1] = _mm256_add_ps(chain[1], _mm256_and_ps(e, _mm256_castsi256_ps(mask)));
      });
  return {largest, sum(_mm256_add_ps(_mm256_add_ps(chain[0], chain[1]), _mm256_add_ps(chain[2], chain[3])))};
}

double log_sum_exp(const ExpSum* chunk, std::int64_t chunks) {
  double largest = chunk[0].largest;
  for (std::int64_t c = 1; c < chunks; ++c) largest = std::max(largest, double{chunk[c].largest});
  double total = 0.0;
  for (std::int64_t c = 0; c < chunks; ++c) total += chunk[c].sum * std::exp(chunk[c].largest - largest);
  return largest + std::log(total);
}

}  // namespace mezzo::cpu
