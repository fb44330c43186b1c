#pragma once
// What the kernels of mixtures have room for (routing.h, experts.h), for whoever plans without CUDA.
#include <cstdint>

namespace mezzo::cuda {

inline constexpr std::int64_t most_experts = 512;
inline constexpr std::int64_t most_chosen = 32;

}  // namespace mezzo::cuda
