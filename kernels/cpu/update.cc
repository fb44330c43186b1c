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

/// The sums over directions of the `n` elements of a tensor from `first` on, which begins a quad.
void sum_tile(float* acc, std::int64_t first, std::int64_t n, std::uint32_t tensor,
              std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind) {
  alignas(64) float z[tile];
  std::fill_n(acc, n, 0.0f);
  for (std::size_t k = 0; k < seeds.size(); ++k) {
    fill_noise(z, n, kind, seeds[k], tensor, static_cast<std::uint64_t>(first));
    for (std::int64_t i = 0; i < n; ++i) acc[i] = update_accumulate(acc[i], coefficients[k], z[i]);
  }
}

/// Adam with one second moment of the tensor. A thread takes every fourth tile, whose quads have lanes that
/// no other thread's have.
void update_scalar(float* theta, const UpdateState& state, std::int64_t count, std::uint32_t tensor,
                   std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
                   const UpdateFactors& factors, int threads) {
  constexpr std::int64_t groups = 4 * std::int64_t{moment_lanes} / tile;
  static_assert(groups * tile == 4 * std::int64_t{moment_lanes});
  const std::int64_t tiles = (count + tile - 1) / tile;
  alignas(64) double lanes[moment_lanes] = {};
#pragma omp parallel for schedule(static) num_threads(useful_threads(std::min(groups, tiles), threads))
  for (std::int64_t group = 0; group < groups; ++group) {
    alignas(64) float acc[tile];
    for (std::int64_t t = group; t < tiles; t += groups) {
      const std::int64_t first = t * tile;
      const std::int64_t n = std::min(tile, count - first);
      sum_tile(acc, first, n, tensor, seeds, coefficients, kind);
      for (std::int64_t i = 0; i < n; ++i)
        state.first[first + i] = adam_first(factors, state.first[first + i], acc[i]);
      for (std::int64_t i = 0; i < n; i += 4) {
        double squares = 0.0;
        for (std::int64_t j = i; j < std::min(i + 4, n); ++j) squares = add_square(squares, acc[j]);
        lanes[(first + i) / 4 % moment_lanes] += squares;
      }
    }
  }
  *state.second = scalar_second(factors, *state.second, fold_lanes(lanes), count);
  const float second = *state.second;
#pragma omp parallel for schedule(static) num_threads(useful_threads(tiles, threads))
  for (std::int64_t i = 0; i < count; ++i) update_by_scalar(factors, theta, state, i, second);
}

}  // namespace

void update(float* theta, const UpdateState& state, std::int64_t count, std::uint32_t tensor,
            std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
            const UpdateFactors& factors, int threads) {
  if (count == 0) return;
  if (factors.scalar_second) {
    update_scalar(theta, state, count, tensor, seeds, coefficients, kind, factors, threads);
    return;
  }
  const std::int64_t tiles = (count + tile - 1) / tile;
#pragma omp parallel for schedule(static) num_threads(useful_threads(tiles, threads))
  for (std::int64_t t = 0; t < tiles; ++t) {
    alignas(64) float acc[tile];
    const std::int64_t first = t * tile;
    const std::int64_t n = std::min(tile, count - first);
    sum_tile(acc, first, n, tensor, seeds, coefficients, kind);
    with_rule(factors.rule, [&](auto known) {
      for (std::int64_t i = 0; i < n; ++i)
        update_at<decltype(known)::rule>(factors, theta, state, first + i, acc[i]);
    });
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
