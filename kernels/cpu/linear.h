#pragma once
// Matrix products by OpenBLAS, one single-threaded call each, and what a perturbed product adds.
#include <cstdint>
#include <span>

#include "kernels/rows.h"
#include "mezzo/core/noise.h"

namespace mezzo::cpu {

/// y[t] = W x[t]; x [rows, in], W [out, in], y [rows, out]. The bits of y depend on the shape and the
/// operands alone: not on addresses or strides.
void linear(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
            std::int64_t out, Rows<float> y);

/// y[t] += scale W x[t].
void add_linear(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
                std::int64_t out, float scale, Rows<float> y);

/// One probe's copy of a factor: factor + epsilon z, each element rounded once.
struct PerturbedCopy {
  float epsilon = 0.0f;  ///< signed; 0 copies the factor as it is
  float* to = nullptr;   ///< element 0 of the copy
};

/// Elements [first, first + count) of the copies of one dense factor, or of zeros where it is null, under one
/// direction's noise, made once for all.
void perturb(const float* factor, std::int64_t first, std::int64_t count, NoiseKind kind, std::uint64_t seed,
             NoiseTensor tensor, std::span<const PerturbedCopy> copies);

/// y[t] += bias, in place.
void add_bias(const float* bias, std::int64_t rows, std::int64_t cols, Rows<float> y);

}  // namespace mezzo::cpu
