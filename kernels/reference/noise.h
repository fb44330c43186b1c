#pragma once
#include <cstdint>

#include "mezzo/core/noise.h"

namespace mezzo::reference {

/// out[i] = noise of element first_element + i of a tensor, i < count.
void fill_noise(float* out, std::int64_t count, NoiseKind kind, std::uint64_t seed, NoiseTensor tensor,
                std::uint64_t first_element);

}  // namespace mezzo::reference
