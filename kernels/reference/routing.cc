#include "kernels/reference/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace mezzo::reference {

void choose_experts(const float* logits, std::int64_t count, std::int64_t chosen, bool renormalised,
                    std::int32_t* experts, float* weights) {
  // Logits of a run that diverged may be NaN: they come last, so that the order stays one.
  const auto rank = [&](std::int32_t e) { return std::isnan(logits[e]) ? -INFINITY : double{logits[e]}; };
  std::vector<std::int32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) { return rank(a) > rank(b); });
  std::copy_n(order.begin(), chosen, experts);
  std::sort(experts, experts + chosen);

  const double largest = logits[order.front()];
  double total = 0.0;
  for (std::int64_t i = 0; i < (renormalised ? chosen : count); ++i) {
    total += std::exp(logits[order[static_cast<std::size_t>(i)]] - largest);
  }
  for (std::int64_t j = 0; j < chosen; ++j) {
    weights[j] = static_cast<float>(std::exp(logits[experts[j]] - largest) / total);
  }
}

void combine(const float* weights, const std::int32_t* places, std::int64_t chosen, Rows<const float> x,
             std::int64_t cols, float* out) {
  for (std::int64_t i = 0; i < cols; ++i) {
    double sum = 0.0;
    for (std::int64_t j = 0; j < chosen; ++j) sum += double{weights[j]} * x.row(places[j])[i];
    out[i] = static_cast<float>(sum);
  }
}

}  // namespace mezzo::reference
