#pragma once
#include <cstdint>

#include "mezzo/core/noise.h"

namespace mezzo::cpu {

/// out[i] = noise of element first_element + i of a tensor, i < count; any count and first_element.
/// Single-threaded: callers cut their work into ranges, which may start anywhere (fastest at multiples of
/// 128).
void fill_noise(float* out, std::int64_t count, NoiseKind kind, std::uint64_t seed, NoiseTensor tensor,
                std::uint64_t first_element);

}  // namespace mezzo::cpu
