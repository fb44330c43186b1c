#pragma once
#include <cstdint>
#include <vector>

#include "mezzo/backend/buffer.h"
#include "mezzo/core/noise_kind.h"

namespace mezzo {

/// One loss evaluation: L(theta + epsilon * z(seed)). The layout is shared with device code.
struct Probe {
  std::uint64_t seed = 0;       ///< of the direction
  std::uint32_t direction = 0;  ///< index in the step; probes of one direction share its noise
  float epsilon = 0.0f;         ///< signed: +eps, -eps, or 0 for the unperturbed loss
};

/// The probes that one forward evaluates together, on the host and in the backend's memory. Operations read
/// the device copy, so that a captured graph can be replayed with other seeds.
struct ProbeTable {
  std::vector<Probe> probes;  ///< [P]
  NoiseKind noise = NoiseKind::gaussian;
  Buffer device;  ///< Probe[capacity]; filled by Backend::upload

  std::int64_t count() const { return static_cast<std::int64_t>(probes.size()); }
};

}  // namespace mezzo
