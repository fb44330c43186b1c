#pragma once
#include <cstdint>
#include <span>

#include "mezzo/core/noise_kind.h"
#include "mezzo/core/update.h"

namespace mezzo::reference {

/// One optimizer step on a tensor of `count` elements, held in fp32 or bf16 (std::uint16_t), and on what
/// `state` keeps of it, in place, as mezzo/core/update.h spells and rounds it. `seeds` and `coefficients`
/// hold one entry a direction, ascending.
template <typename Master>
void update(Master* theta, const UpdateState& state, std::int64_t count, const TensorNoise& of,
            std::span<const std::uint64_t> seeds, std::span<const float> coefficients, NoiseKind kind,
            const UpdateFactors& factors, const StepRounding& rounding = {});

/// A tensor's share of the in-run hash; the hash of all trainables is the sum of their shares, modulo 2^64.
template <typename Master>
std::uint64_t hash(const Master* theta, std::int64_t count, std::uint32_t tensor);

}  // namespace mezzo::reference
