#pragma once
// Activations apart from a product, in bf16.
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

}  // namespace mezzo::cuda
