#include "kernels/reference/update.h"

#include <algorithm>
#include <vector>

#include "mezzo/core/update.h"

namespace mezzo::reference {

namespace {

template <typename Master>
auto rounding_at(const StepRounding& rounding, const TensorNoise& of, std::int64_t i) {
  const auto element = static_cast<std::uint64_t>(i);
  return BlockRounding<Master>(rounding, of.tensor, element).of(element);
}

/// Adam with one second moment of the tensor: all first moments and the sum of squares, then all elements.
template <typename Master>
void update_scalar(Master* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
                   std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
                   const UpdateFactors& factors, const StepRounding& rounding) {
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
  for (std::int64_t i = 0; i < count; ++i)
    update_by_scalar(factors, theta, state, i, *state.second, rounding_at<Master>(rounding, of, i));
}

}  // namespace

template <typename Master>
void update(Master* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
            std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
            const UpdateFactors& factors, const StepRounding& rounding) {
  if (count == 0) return;
  if (factors.scalar_second) {
    update_scalar(theta, state, count, of, seeds, coefficients, kind, factors, rounding);
    return;
  }
  const auto directions = static_cast<std::int64_t>(seeds.size());
  with_rule(factors.rule, [&](auto known) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float acc =
          update_sum(of, static_cast<std::uint64_t>(i), seeds.data(), coefficients.data(), directions, kind);
      update_at<decltype(known)::rule>(factors, theta, state, i, acc, rounding_at<Master>(rounding, of, i));
    }
  });
}

template <typename Master>
std::uint64_t hash(const Master* theta, std::int64_t count, std::uint32_t tensor) {
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i)
    sum += element_hash(tensor, static_cast<std::uint64_t>(i), master_value(theta[i]));
  return sum;
}

template void update(float*, const UpdateState&, std::int64_t, const TensorNoise&,
                     std::span<const std::uint64_t>, std::span<const float>, NoiseKind, const UpdateFactors&,
                     const StepRounding&);
template void update(std::uint16_t*, const UpdateState&, std::int64_t, const TensorNoise&,
                     std::span<const std::uint64_t>, std::span<const float>, NoiseKind, const UpdateFactors&,
                     const StepRounding&);
template std::uint64_t hash(const float*, std::int64_t, std::uint32_t);
template std::uint64_t hash(const std::uint16_t*, std::int64_t, std::uint32_t);

}  // namespace mezzo::reference
