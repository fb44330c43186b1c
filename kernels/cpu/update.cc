#include "kernels/cpu/update.h"

#include <algorithm>

#include "kernels/cpu/noise.h"
#include "mezzo/core/update.h"

namespace mezzo::cpu {
namespace {

constexpr std::int64_t tile = 1024;  // elements; noise and sum of a tile stay in the first-level cache

int useful_threads(std::int64_t tiles, int threads) {
  return static_cast<int>(std::clamp<std::int64_t>(tiles, 1, threads));
}

}  // namespace

void update(float* theta, std::int64_t count, std::uint32_t tensor, std::span<const std::uint64_t> seeds,
            std::span<const float> coefficients, NoiseKind kind, float learning_rate, float weight_decay,
            int threads) {
  const float decay = update_decay(learning_rate, weight_decay);
  const std::int64_t tiles = (count + tile - 1) / tile;
#pragma omp parallel for schedule(static) num_threads(useful_threads(tiles, threads))
  for (std::int64_t t = 0; t < tiles; ++t) {
    alignas(64) float acc[tile] = {};
    alignas(64) float z[tile];
    const std::int64_t first = t * tile;
    const std::int64_t n = std::min(tile, count - first);
    for (std::size_t k = 0; k < seeds.size(); ++k) {
      fill_noise(z, n, kind, seeds[k], tensor, static_cast<std::uint64_t>(first));
      for (std::int64_t i = 0; i < n; ++i) acc[i] = update_accumulate(acc[i], coefficients[k], z[i]);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      theta[first + i] = update_apply(theta[first + i], acc[i], learning_rate, decay);
    }
  }
}

std::uint64_t hash(const float* theta, std::int64_t count, std::uint32_t tensor, int threads) {
  std::uint64_t sum = 0;
  const std::int64_t tiles = (count + tile - 1) / tile;
#pragma omp parallel for schedule(static) num_threads(useful_threads(tiles, threads)) reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i)
    sum += element_hash(tensor, static_cast<std::uint64_t>(i), theta[i]);
  return sum;
}

}  // namespace mezzo::cpu
