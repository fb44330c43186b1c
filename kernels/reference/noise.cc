#include "kernels/reference/noise.h"

#include "mezzo/core/noise.h"

namespace mezzo::reference {

void fill_noise(float* out, std::int64_t count, NoiseKind kind, std::uint64_t seed, NoiseTensor tensor,
                std::uint64_t first_element) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = noise_at(kind, seed, tensor, first_element + i);
}

}  // namespace mezzo::reference
