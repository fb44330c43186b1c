#pragma once
#include <cstdint>
#include <span>

#include "mezzo/core/noise_kind.h"
#include "mezzo/core/update.h"

namespace mezzo::cpu {

/// One optimizer step on a tensor of `count` fp32 elements and on what `state` keeps of it, in place, as
/// mezzo/core/update.h spells and rounds it. `seeds` and `coefficients` hold one entry a direction,
/// ascending. Noise is made again from its seeds, a tile of a few KiB a thread at a time. The result does not
/// depend on `threads` (>= 1).
void update(float* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
            std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
            const UpdateFactors& factors, int threads);

/// A tensor's share of the in-run hash; the hash of all trainables is the sum of their shares, modulo 2^64.
std::uint64_t hash(const float* theta, std::int64_t count, std::uint32_t tensor, int threads);

}  // namespace mezzo::cpu
