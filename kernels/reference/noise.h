#pragma once
#include <cstdint>

#include "mezzo/core/noise_kind.h"

namespace mezzo::reference {

/// out[i] = noise of element first_element + i of a tensor, i < count.
void fill_noise(float* out, std::int64_t count, NoiseKind kind, std::uint64_t seed, std::uint32_t tensor,
                std::uint64_t first_element);

}  // namespace mezzo::reference
