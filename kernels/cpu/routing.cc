#include "kernels/cpu/routing.h"

#include "kernels/cpu/score.h"
#include "kernels/cpu/simd.h"

namespace mezzo::cpu {

using namespace simd;

namespace {

/// Expert `e` stands before `other`. A NaN stands behind all numbers but -infinity.
bool stands_before(const float* logits, std::int32_t e, std::int32_t other) {
  const auto rank = [&](std::int32_t i) { return logits[i] != logits[i] ? -__builtin_inff() : logits[i]; };
  return rank(e) > rank(other) || (rank(e) == rank(other) && e < other);
}

}  // namespace

void choose_experts(const float* logits, std::int64_t count, std::int64_t chosen, bool renormalised,
                    std::int32_t* experts, float* weights) {
  // The best so far, best first.
  std::int64_t held = 0;
  for (std::int32_t e = 0; e < count; ++e) {
    if (held == chosen && !stands_before(logits, e, experts[held - 1])) continue;
    std::int64_t place = held < chosen ? held++ : held - 1;
    for (; place > 0 && stands_before(logits, e, experts[place - 1]); --place)
      experts[place] = experts[place - 1];
    experts[place] = e;
  }
  // Ascending, by insertion: they are few.
  for (std::int64_t i = 1; i < chosen; ++i) {
    const std::int32_t e = experts[i];
    std::int64_t place = i;
    for (; place > 0 && experts[place - 1] > e; --place) experts[place] = experts[place - 1];
    experts[place] = e;
  }
  for (std::int64_t j = 0; j < chosen; ++j) weights[j] = logits[experts[j]];
  const ExpSum all = renormalised ? exp_sum(weights, chosen) : exp_sum(logits, count);
  const Float8 largest = broadcast(all.largest), total = broadcast(all.sum);
  const auto weight = [&](Float8 logit) { return _mm256_div_ps(exp(_mm256_sub_ps(logit, largest)), total); };
  for_each(
      chosen, [&](std::int64_t j) { store(weights + j, weight(load(weights + j))); },
      [&](std::int64_t j, __m256i mask) { store(weights + j, mask, weight(load(weights + j, mask))); });
}

void combine(const float* weights, const std::int32_t* places, std::int64_t chosen, Rows<const float> x,
             std::int64_t cols, float* out) {
  const auto sum = [&](auto load_at) {
    Float8 total = _mm256_mul_ps(broadcast(weights[0]), load_at(x.row(places[0])));
    for (std::int64_t j = 1; j < chosen; ++j)
      total = fma(broadcast(weights[j]), load_at(x.row(places[j])), total);
    return total;
  };
  for_each(
      cols, [&](std::int64_t i) { store(out + i, sum([i](const float* row) { return load(row + i); })); },
      [&](std::int64_t i, __m256i mask) {
        store(out + i, mask, sum([i, mask](const float* row) { return load(row + i, mask); }));
      });
}

}  // namespace mezzo::cpu
