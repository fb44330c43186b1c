#pragma once
// The distributions a direction may be drawn from; apart from noise.h because the config names them too.
#include <cstdint>

namespace mezzo {

/// Distribution of a direction's elements. The numbers are frozen: trajectories store them.
enum class NoiseKind : std::uint8_t { gaussian = 0, rademacher = 1 };

}  // namespace mezzo
