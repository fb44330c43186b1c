#include "kernels/cuda/activation.h"

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

constexpr int threads = 256;

/// What is rounded to bf16 needs no correctly rounded quotient.
__device__ inline float apply_fast(Curve curve, float x) {
  if (curve == Curve::silu) return __fdividef(x, 1.0f + __expf(-x));
  return apply(curve, x);
}

/// One block a row.
__global__ void __launch_bounds__(threads)
    activate_row(Typed<const bf16> x, Curve curve, bool gated, int cols, Typed<bf16> y) {
  const bf16* from = x.row(0, blockIdx.x);
  bf16* to = y.row(0, blockIdx.x);
  for (int j = 8 * static_cast<int>(threadIdx.x); j < cols; j += 8 * threads) {
    float value[8];
    load8(from + j, value);
#pragma unroll
    for (int e = 0; e < 8; ++e) value[e] = apply_fast(curve, value[e]);
    if (gated) {
      float up[8];
      load8(from + cols + j, up);
#pragma unroll
      for (int e = 0; e < 8; ++e) value[e] *= up[e];
    }
    store8(to + j, value);
  }
}

/// One block a row.
template <typename T>
__global__ void __launch_bounds__(threads)
    gate_row(Typed<const T> x, Curve curve, std::int64_t cols, Typed<T> y) {
  const T* from = x.row(blockIdx.y, blockIdx.x);
  T* to = y.row(blockIdx.y, blockIdx.x);
  for (std::int64_t j = threadIdx.x; j < cols; j += threads)
    to[j] = from_float<T>(apply(curve, to_float(from[j])) * to_float(from[cols + j]));
}

template <typename T>
__global__ void __launch_bounds__(threads) soft_cap_row(Typed<T> x, float cap, std::int64_t cols) {
  T* row = x.row(blockIdx.y, blockIdx.x);
  for (std::int64_t j = threadIdx.x; j < cols; j += threads)
    row[j] = from_float<T>(soft_capped(to_float(row[j]), cap));
}

}  // namespace

cudaError_t gate(Matrices x, Curve curve, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                 Matrices y, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(x.dtype, [&]<typename T>(T) {
    gate_row<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, 0, stream>>>(typed<const T>(x), curve,
                                                                                  cols, typed<T>(y));
    return cudaGetLastError();
  });
}

cudaError_t soft_cap(Matrices x, float cap, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                     cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(x.dtype, [&]<typename T>(T) {
    soft_cap_row<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, 0, stream>>>(typed<T>(x), cap, cols);
    return cudaGetLastError();
  });
}

cudaError_t activate(Matrices x, Curve curve, bool gated, std::int64_t rows, std::int64_t cols, Matrices y,
                     cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (x.dtype != DType::bf16 || y.dtype != DType::bf16 || cols % 8 != 0 || !in_eights(x) || !in_eights(y))
    return cudaErrorInvalidValue;
  activate_row<<<blocks(rows, 1), threads, 0, stream>>>(typed<const bf16>(x), curve, gated,
                                                        static_cast<int>(cols), typed<bf16>(y));
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
