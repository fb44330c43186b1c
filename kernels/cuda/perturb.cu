#include "kernels/cuda/perturb.h"

#include "kernels/cuda/device.cuh"
#include "mezzo/core/noise.h"

namespace mezzo::cuda {
namespace {

constexpr int threads = 128;

/// A thread makes eight neighbours in a row whose length, like all strides, is a multiple of 8.
template <typename T, typename S>
__global__ void __launch_bounds__(threads)
    perturb_eights(Typed<T> out, const S* value, std::int64_t cols, float offset, std::uint32_t tensor,
                   NoiseKind noise, const Perturbation* probes, std::int64_t copies) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t col = 8 * (std::int64_t{blockIdx.y} * threads + threadIdx.x);
  if (col >= cols) return;
  const std::int64_t first = row * cols + col;
  float theta[8];
  load8(value + first, theta);
  float z[8];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const NoiseQuad quad =
        noise4(noise, probes[0].seed, tensor, static_cast<std::uint64_t>(first / 4 + half));
#pragma unroll
    for (int i = 0; i < 4; ++i) z[4 * half + i] = quad.value[i];
  }
  for (std::int64_t copy = 0; copy < copies; ++copy) {
    const float epsilon = probes[copy].epsilon;
    float moved[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) moved[i] = perturbed(theta[i], offset, epsilon, z[i]);
    store8(out.row(copy, row) + col, moved);
  }
}

/// A thread makes the elements that share a block of normals, in any rows.
template <typename T, typename S>
__global__ void __launch_bounds__(threads)
    perturb_quads(Typed<T> out, const S* value, std::int64_t count, std::int64_t cols, float offset,
                  std::uint32_t tensor, NoiseKind noise, const Perturbation* probes, std::int64_t copies) {
  const std::int64_t quad = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (4 * quad >= count) return;
  const NoiseQuad z = noise4(noise, probes[0].seed, tensor, static_cast<std::uint64_t>(quad));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t e = 4 * quad + i;
    if (e >= count) return;
    for (std::int64_t copy = 0; copy < copies; ++copy) {
      out.row(copy, e / cols)[e % cols] =
          from_float<T>(perturbed(to_float(value[e]), offset, probes[copy].epsilon, z.value[i]));
    }
  }
}

}  // namespace

cudaError_t perturb(Matrices out, const void* value, DType value_dtype, std::int64_t rows, std::int64_t cols,
                    float offset, std::uint32_t tensor, NoiseKind noise, const Perturbation* probes,
                    std::int64_t copies, cudaStream_t stream) {
  const std::int64_t count = rows * cols;
  if (count == 0) return cudaSuccess;
  const bool eights = cols % 8 == 0 && in_eights(value) && in_eights(out);
  return by_type(out.dtype, [&]<typename T>(T) {
    return by_type(value_dtype, [&]<typename S>(S) {
      const auto* const from = static_cast<const S*>(value);
      if (eights) {
        perturb_eights<T, S><<<dim3(blocks(rows, 1), blocks(cols, 8 * threads)), threads, 0, stream>>>(
            typed<T>(out), from, cols, offset, tensor, noise, probes, copies);
      } else {
        perturb_quads<T, S><<<blocks(count, 4 * threads), threads, 0, stream>>>(
            typed<T>(out), from, count, cols, offset, tensor, noise, probes, copies);
      }
      return cudaGetLastError();
    });
  });
}

}  // namespace mezzo::cuda
