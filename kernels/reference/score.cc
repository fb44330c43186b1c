#include "kernels/reference/score.h"

#include <algorithm>
#include <cmath>

namespace mezzo::reference {

void head_logits(const float* x, std::int64_t in, Rows<const float> weight, std::int64_t vocab,
                 const float* bias, double* logits) {
  for (std::int64_t v = 0; v < vocab; ++v) {
    double sum = bias != nullptr ? bias[v] : 0.0;
    for (std::int64_t i = 0; i < in; ++i) sum += double{weight.row(v)[i]} * x[i];
    logits[v] = sum;
  }
}

double log_sum_exp(const double* logits, std::int64_t vocab) {
  const double largest = *std::max_element(logits, logits + vocab);
  double total = 0.0;
  for (std::int64_t v = 0; v < vocab; ++v) total += std::exp(logits[v] - largest);
  return largest + std::log(total);
}

}  // namespace mezzo::reference
