#pragma once
// What programs that check and time products beside cuBLASLt share: checked calls, rows that are the same in
// any company.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <cmath>

#include "device_array.cuh"

namespace mezzo {

inline void must(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::printf("%s: %s\n", what, cublasLtGetStatusString(status));
  std::exit(1);
}

/// Uniform in [-1, 1).
inline __host__ __device__ float value(std::uint64_t seed, std::uint64_t row, std::uint64_t column) {
  return static_cast<float>(mix(mix(seed * 131 + row) + column) >> 40) * 0x1p-23f - 1.0f;
}

/// Row i is the seed's row (i + shift) % period, whatever the number of rows; NaN behind its columns.
static __global__ void fill(__nv_bfloat16* to, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                            std::uint64_t seed, float scale, std::int64_t shift,
                            std::int64_t period = std::int64_t{1} << 62) {
  for (std::int64_t i = blockIdx.x; i < rows; i += gridDim.x) {
    for (std::int64_t j = threadIdx.x; j < stride; j += blockDim.x) {
      to[i * stride + j] =
          __float2bfloat16_rn(j < columns ? scale * value(seed, (i + shift) % period, j) : NAN);
    }
  }
}

}  // namespace mezzo
