#pragma once
#include <cstdint>

namespace mezzo::cpu {

/// sum_v exp(logit[v]) = sum * exp(largest), over a chunk of a row's logits.
struct ExpSum {
  float largest = 0.0f;
  float sum = 0.0f;
};
ExpSum exp_sum(const float* logits, std::int64_t count);

/// log sum exp over all chunks of a row, added in ascending order in double. chunks >= 1.
double log_sum_exp(const ExpSum* chunk, std::int64_t chunks);

}  // namespace mezzo::cpu
