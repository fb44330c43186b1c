#include "kernels/reference/update.h"

#include "mezzo/core/update.h"

namespace mezzo::reference {

void update(float* theta, std::int64_t count, std::uint32_t tensor, std::span<const std::uint64_t> seeds,
            std::span<const float> coefficients, NoiseKind kind, float learning_rate, float weight_decay) {
  const auto directions = static_cast<std::int64_t>(seeds.size());
  for (std::int64_t i = 0; i < count; ++i) {
    theta[i] = updated(theta[i], tensor, static_cast<std::uint64_t>(i), seeds.data(), coefficients.data(),
                       directions, kind, learning_rate, weight_decay);
  }
}

std::uint64_t hash(const float* theta, std::int64_t count, std::uint32_t tensor) {
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i)
    sum += element_hash(tensor, static_cast<std::uint64_t>(i), theta[i]);
  return sum;
}

}  // namespace mezzo::reference
