#include "kernels/reference/update.h"

#include <algorithm>
#include <vector>

#include "mezzo/core/update.h"

namespace mezzo::reference {

namespace {

/// Adam with one second moment of the tensor: all first moments and the sum of squares, then all elements.
void update_scalar(float* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
                   std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
                   const UpdateFactors& factors) {
  std::vector<double> lanes(moment_lanes, 0.0);
  for (std::int64_t quad = 0; 4 * quad < count; ++quad) {
    double squares = 0.0;
    for (std::int64_t i = 4 * quad; i < std::min(4 * quad + 4, count); ++i) {
      const float acc = update_sum(of, static_cast<std::uint64_t>(i), seeds.data(), coefficients.data(),
                                   static_cast<std::int64_t>(seeds.size()), kind);
      state.first[i] = adam_first(factors, state.first[i], acc);
      squares = add_square(squares, acc);
    }
    lanes[static_cast<std::size_t>(quad % moment_lanes)] += squares;
  }
  *state.second = scalar_second(factors, *state.second, fold_lanes(lanes.data()), count);
  for (std::int64_t i = 0; i < count; ++i) update_by_scalar(factors, theta, state, i, *state.second);
}

}  // namespace

void update(float* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
            std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
            const UpdateFactors& factors) {
  if (count == 0) return;
  if (factors.scalar_second) {
    update_scalar(theta, state, count, of, seeds, coefficients, kind, factors);
    return;
  }
  const auto directions = static_cast<std::int64_t>(seeds.size());
  with_rule(factors.rule, [&](auto known) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float acc =
          update_sum(of, static_cast<std::uint64_t>(i), seeds.data(), coefficients.data(), directions, kind);
      update_at<decltype(known)::rule>(factors, theta, state, i, acc);
    }
  });
}

std::uint64_t hash(const float* theta, std::int64_t count, std::uint32_t tensor) {
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i)
    sum += element_hash(tensor, static_cast<std::uint64_t>(i), theta[i]);
  return sum;
}

}  // namespace mezzo::reference
