#pragma once
// Activations apart from a product.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"

namespace mezzo::cuda {

/// The values of mezzo::Activation, which a layer above owns.
enum class Curve : std::uint8_t { none, silu, gelu_tanh, gelu_erf, relu };

/// y [rows, cols] = curve(x), or curve(gate) * up where x is [rows, gate | up], each `cols` wide. y may be x
/// where not gated. One matrix each, bf16, rows and halves in groups of eight.
cudaError_t activate(Matrices x, Curve curve, bool gated, std::int64_t rows, std::int64_t cols, Matrices y,
                     cudaStream_t stream);

/// y [copies][rows][cols] = curve(gate) * up, where x is [copies][rows][gate | up] of any width; fp32 or
/// bf16.
cudaError_t gate(Matrices x, Curve curve, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                 Matrices y, cudaStream_t stream);

/// x = cap tanh(x / cap), in place; fp32 or bf16.
cudaError_t soft_cap(Matrices x, float cap, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                     cudaStream_t stream);

}  // namespace mezzo::cuda
