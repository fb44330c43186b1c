#pragma once
#include <cstdint>

namespace mezzo {

/// What z is drawn from. The numbers are frozen: trajectories store them.
enum class NoiseKind : std::uint8_t { gaussian = 0, rademacher = 1 };

}  // namespace mezzo
