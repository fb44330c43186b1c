#include "kernels/cpu/update.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/cpu/noise.h"
#include "mezzo/core/update.h"

namespace mezzo::cpu {
namespace {

constexpr std::int64_t tile = 1024;  // elements; noise and sum of a tile stay in the first-level cache

int useful_threads(std::int64_t tiles, int threads) {
  return static_cast<int>(std::clamp<std::int64_t>(tiles, 1, threads));
}

/// The sums over directions at a tensor's elements, a tile at a time.
class Sums {
 public:
  /// `seeds` and `coefficients` must outlive it.
  Sums(const TensorNoise& of, std::int64_t count, std::span<const std::uint64_t> seeds,
       std::span<const float> coefficients, NoiseKind kind, int threads)
      : of_(of), seeds_(seeds), coefficients_(coefficients), kind_(kind) {
    if (of.rank == 0) return;
    rows_ = count / of.cols;
    const std::int64_t u = rows_ * of.rank;
    const std::int64_t v = of.rank * of.cols;
    const std::int64_t directions = std::ssize(seeds);
    factors_.resize(static_cast<std::size_t>(directions * (u + v)));
#pragma omp parallel for schedule(static) num_threads(useful_threads(directions, threads))
    for (std::int64_t k = 0; k < directions; ++k) {
      float* const to = factors_.data() + k * (u + v);
      const std::uint64_t seed = seeds[static_cast<std::size_t>(k)];
      fill_noise(to, u, kind, seed, outer_rows(of.tensor), 0);
      fill_noise(to + u, v, kind, seed, outer_columns(of.tensor), 0);
    }
  }

  /// Of the `n` elements from `first` on, which begins a quad.
  void fill(float* acc, std::int64_t first, std::int64_t n) const {
    std::fill_n(acc, n, 0.0f);
    if (of_.rank > 0) return add_outer(acc, first, n);
    alignas(64) float z[tile];
    for (std::size_t k = 0; k < seeds_.size(); ++k) {
      fill_noise(z, n, kind_, seeds_[k], of_.tensor, static_cast<std::uint64_t>(first));
      for (std::int64_t i = 0; i < n; ++i) acc[i] = update_accumulate(acc[i], coefficients_[k], z[i]);
    }
  }

 private:
  void add_outer(float* acc, std::int64_t first, std::int64_t n) const {
    const std::int64_t rank = of_.rank;
    const float scale = outer_scale(rank);
    for (std::size_t k = 0; k < seeds_.size(); ++k) {
      const float* const u = factors_.data() + static_cast<std::int64_t>(k) * rank * (rows_ + of_.cols);
      const float* const v = u + rows_ * rank;
      const float coefficient = coefficients_[k];
      for (std::int64_t i = 0; i < n;) {  // the part of the tile that is in one row
        const std::int64_t row = (first + i) / of_.cols;
        const std::int64_t col = (first + i) % of_.cols;
        const std::int64_t past = std::min(n, i + of_.cols - col);
        const float* const u_row = u + row * rank;
        const float* const v_col = v + col - i;
        if (rank == 1) {
          for (; i < past; ++i)
            acc[i] = update_accumulate(acc[i], coefficient, outer_element(u_row, v_col + i, 0, 1, scale));
        } else {
          for (; i < past; ++i) {
            const float z = outer_element(u_row, v_col + i, of_.cols, rank, scale);
            acc[i] = update_accumulate(acc[i], coefficient, z);
          }
        }
      }
    }
  }

  const TensorNoise of_;
  const std::span<const std::uint64_t> seeds_;
  const std::span<const float> coefficients_;
  const NoiseKind kind_;
  std::int64_t rows_ = 0;
  std::vector<float>
      factors_;  ///< of noise of low rank, for each direction U [rows, rank] and V^T [rank, cols]
};

/// call(i, how element i is rounded) for `n` elements from `first` on, which begins a quad.
template <typename Master, typename Call>
void each_rounded(const StepRounding& rounding, std::uint32_t tensor, std::int64_t first, std::int64_t n,
                  const Call& call) {
  if constexpr (std::is_same_v<Master, float>) {
    for (std::int64_t i = first; i < first + n; ++i) call(i, KeepFp32{});
  } else {
    constexpr auto a_block = static_cast<std::int64_t>(elements_per_rounding_block);
    for (std::int64_t i = first; i < first + n;) {
      const PhiloxWords words = rounding_words(rounding, tensor, static_cast<std::uint64_t>(i / a_block));
      for (const std::int64_t past = std::min(first + n, (i / a_block + 1) * a_block); i < past; ++i)
        call(i, RoundToBf16{rounding_bits(words, static_cast<std::uint64_t>(i))});
    }
  }
}

/// Adam with one second moment of the tensor. A thread takes every fourth tile, whose quads have lanes that
/// no other thread's have.
template <typename Master>
void update_scalar(Master* theta, const UpdateState& state, std::int64_t count, const Sums& sums,
                   const UpdateFactors& factors, int threads, const StepRounding& rounding,
                   std::uint32_t tensor) {
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
      sums.fill(acc, first, n);
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
  for (std::int64_t t = 0; t < tiles; ++t) {
    each_rounded<Master>(rounding, tensor, t * tile, std::min(tile, count - t * tile),
                         [&](std::int64_t i, const auto& round) {
                           update_by_scalar(factors, theta, state, i, second, round);
                         });
  }
}

}  // namespace

template <typename Master>
void update(Master* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
            std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
            const UpdateFactors& factors, int threads, const StepRounding& rounding) {
  if (count == 0) return;
  const Sums sums(of, count, seeds, coefficients, kind, threads);
  if (factors.scalar_second) {
    update_scalar(theta, state, count, sums, factors, threads, rounding, of.tensor);
    return;
  }
  const std::int64_t tiles = (count + tile - 1) / tile;
#pragma omp parallel for schedule(static) num_threads(useful_threads(tiles, threads))
  for (std::int64_t t = 0; t < tiles; ++t) {
    alignas(64) float acc[tile];
    const std::int64_t first = t * tile;
    const std::int64_t n = std::min(tile, count - first);
    sums.fill(acc, first, n);
    with_rule(factors.rule, [&](auto known) {
      each_rounded<Master>(rounding, of.tensor, first, n, [&](std::int64_t i, const auto& round) {
        update_at<decltype(known)::rule>(factors, theta, state, i, acc[i - first], round);
      });
    });
  }
}

template <typename Master>
std::uint64_t hash(const Master* theta, std::int64_t count, std::uint32_t tensor, int threads) {
  std::uint64_t sum = 0;
  const std::int64_t tiles = (count + tile - 1) / tile;
#pragma omp parallel for schedule(static) num_threads(useful_threads(tiles, threads)) reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i)
    sum += element_hash(tensor, static_cast<std::uint64_t>(i), master_value(theta[i]));
  return sum;
}

template void update(float*, const UpdateState&, std::int64_t, const TensorNoise&,
                     std::span<const std::uint64_t>, std::span<const float>, NoiseKind, const UpdateFactors&,
                     int, const StepRounding&);
template void update(std::uint16_t*, const UpdateState&, std::int64_t, const TensorNoise&,
                     std::span<const std::uint64_t>, std::span<const float>, NoiseKind, const UpdateFactors&,
                     int, const StepRounding&);
template std::uint64_t hash(const float*, std::int64_t, std::uint32_t, int);
template std::uint64_t hash(const std::uint16_t*, std::int64_t, std::uint32_t, int);

}  // namespace mezzo::cpu
