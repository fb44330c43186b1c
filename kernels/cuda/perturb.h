#pragma once
// The weights of a probe, where they are trained themselves.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"
#include "kernels/cuda/tail.h"
#include "mezzo/core/noise_kind.h"

namespace mezzo::cuda {

/// out[i] [rows, cols] for i < copies = perturbed() of mezzo/core/noise.h under probes[i], rounded to nearest
/// even. The noise is that of tensor `tensor` under the seed of probes[0], made once for all copies. `value`
/// is dense [rows, cols], of type f32 or bf16.
cudaError_t perturb(Matrices out, const void* value, DType value_dtype, std::int64_t rows, std::int64_t cols,
                    float offset, std::uint32_t tensor, NoiseKind noise, const Perturbation* probes,
                    std::int64_t copies, cudaStream_t stream);

}  // namespace mezzo::cuda
