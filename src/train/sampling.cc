#include "mezzo/train/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "mezzo/core/philox.h"

namespace mezzo {
namespace {

/// Uniform in [0, 1), from Philox with a purpose of its own.
double uniform(std::uint64_t seed, std::uint64_t n) {
  return philox4x32_10(philox_counter(n, 0, Purpose::sampling), philox_key(seed)).word[0] * 0x1p-32;
}

}  // namespace

std::int32_t next_token(std::span<const float> logits, const Sampling& sampling, std::uint64_t n) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (sampling.temperature == 0.0) return static_cast<std::int32_t>(best - logits.begin());
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t id) {
    return static_cast<double>(logits[static_cast<std::size_t>(id)]);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  std::vector<double> weights;
  for (const std::int32_t id : order) {
    weights.push_back(std::exp((logit(id) - static_cast<double>(*best)) / sampling.temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0.0;
  std::size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < sampling.top_p * total)) kept += weights[count++];
  double target = uniform(sampling.seed, n) * kept;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    if (target < weights[i]) return order[i];
    target -= weights[i];
  }
  return order[count - 1];
}

}  // namespace mezzo
