#include "kernels/reference/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace mezzo::reference {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();

/// The tokens of the nucleus, in any order.
std::vector<std::int32_t> nucleus(const float* logits, std::int64_t count, const Sampling& sampling,
                                  float largest) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  std::vector<double> weights;
  for (const std::int32_t id : order)
    weights.push_back(std::exp((double{logits[id]} - double{largest}) / double{sampling.temperature}));
  const double enough = double{sampling.top_p} * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t kept = 0;
  for (double sum = 0.0; kept < order.size() && (kept == 0 || sum < enough);) sum += weights[kept++];
  order.resize(kept);
  return order;
}

}  // namespace

std::int32_t choose_token(const float* logits, std::int64_t count, const Sampling& sampling,
                          std::uint64_t key, std::uint32_t place) {
  std::int32_t best = -1;
  float largest = lowest;
  for (std::int64_t id = 0; id < count; ++id) {
    if (std::isnan(logits[id])) return -1;
    if (logits[id] <= largest) continue;
    largest = logits[id];
    best = static_cast<std::int32_t>(id);
  }
  if (sampling.temperature == 0.0f || best < 0) return best;
  const float inverse = 1.0f / sampling.temperature;
  float highest = lowest;
  std::int32_t chosen = -1;
  const auto take = [&](std::int32_t id) {
    const float score =
        draw_score(logits[id], inverse, gumbel_at(key, place, static_cast<std::uint32_t>(id)));
    if (score < highest || (score == highest && chosen >= 0 && id > chosen) || score == lowest) return;
    highest = score;
    chosen = id;
  };
  if (sampling.top_p < 1.0f) {
    for (const std::int32_t id : nucleus(logits, count, sampling, largest)) take(id);
  } else {
    for (std::int64_t id = 0; id < count; ++id) take(static_cast<std::int32_t>(id));
  }
  return chosen;
}

}  // namespace mezzo::reference
