#include "kernels/cpu/linear.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/noise.h"

namespace mezzo::cpu {
namespace {

void sgemm(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
           std::int64_t out, float alpha, float beta, Rows<float> y) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(rows), static_cast<blasint>(out),
              static_cast<blasint>(in), alpha, x.data, static_cast<blasint>(x.stride), weight.data,
              static_cast<blasint>(weight.stride), beta, y.data, static_cast<blasint>(y.stride));
}

}  // namespace

void linear(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
            std::int64_t out, Rows<float> y) {
  sgemm(x, rows, in, weight, out, 1.0f, 0.0f, y);
}

void add_linear(Rows<const float> x, std::int64_t rows, std::int64_t in, Rows<const float> weight,
                std::int64_t out, float scale, Rows<float> y) {
  sgemm(x, rows, in, weight, out, scale, 1.0f, y);
}

void perturb(const float* factor, std::int64_t first, std::int64_t count, NoiseKind kind, std::uint64_t seed,
             NoiseTensor tensor, std::span<const PerturbedCopy> copies) {
  constexpr std::int64_t tile = 4096;  // floats of noise in the first-level cache
  alignas(64) float z[tile];
  const bool any =
      std::any_of(copies.begin(), copies.end(), [](const PerturbedCopy& c) { return c.epsilon != 0.0f; });
  for (std::int64_t begin = first; begin < first + count; begin += tile) {
    const std::int64_t size = std::min(tile, first + count - begin);
    if (any) fill_noise(z, size, kind, seed, tensor, static_cast<std::uint64_t>(begin));
    for (const PerturbedCopy& copy : copies) {
      float* to = copy.to + begin;
      const float epsilon = copy.epsilon;
      if (factor == nullptr) {
        std::fill_n(to, size, 0.0f);
        if (epsilon == 0.0f) continue;
#pragma omp simd
        for (std::int64_t i = 0; i < size; ++i) to[i] = epsilon * z[i];
        continue;
      }
      const float* from = factor + begin;
      if (epsilon == 0.0f) {
        std::copy(from, from + size, to);
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < size; ++i) to[i] = std::fma(epsilon, z[i], from[i]);
      }
    }
  }
}

void add_bias(const float* bias, std::int64_t rows, std::int64_t cols, Rows<float> y) {
  for (std::int64_t t = 0; t < rows; ++t) {
    float* row = y.row(t);
#pragma omp simd
    for (std::int64_t j = 0; j < cols; ++j) row[j] += bias[j];
  }
}

}  // namespace mezzo::cpu
