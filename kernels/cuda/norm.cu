#include "kernels/cuda/norm.h"

#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

constexpr int threads = 256;

/// One block a row; the row's sum waits in shared memory between the passes.
template <typename T>
__global__ void residual_norm_row(ResidualNorm o, std::int64_t cols, Typed<const float> h_in,
                                  Typed<const T> first, Typed<const T> second, Typed<float> h_out,
                                  Typed<T> x) {
  extern __shared__ float sum[];
  const std::int64_t i = blockIdx.x;
  const std::int64_t copy = blockIdx.y;
  const float* h = h_in.row(copy, i);
  const T* d0 = o.deltas > 0 ? first.row(copy, i) : nullptr;
  const T* d1 = o.deltas > 1 ? second.row(copy, i) : nullptr;
  float* stored = o.h_out.data != nullptr ? h_out.row(copy, i) : nullptr;
  float total = 0.0f;
  for (std::int64_t j = threadIdx.x; j < cols; j += threads) {
    float value = h[j];
    if (d0 != nullptr) value += to_float(d0[j]);
    if (d1 != nullptr) value += to_float(d1[j]);
    sum[j] = value;
    if (stored != nullptr) stored[j] = value;
    total += o.layer ? value : value * value;
  }
  const auto count = static_cast<float>(cols);
  float mean = 0.0f;
  float variance = block_sum(total) / count;
  if (o.layer) {
    mean = variance;
    float squares = 0.0f;
    for (std::int64_t j = threadIdx.x; j < cols; j += threads) squares += (sum[j] - mean) * (sum[j] - mean);
    variance = block_sum(squares) / count;
  }
  const float scale = 1.0f / sqrtf(variance + o.epsilon);
  T* to = x.row(copy, i);
  for (std::int64_t j = threadIdx.x; j < cols; j += threads) {
    float value = (sum[j] - mean) * scale * o.weight[j];
    if (o.bias != nullptr) value += o.bias[j];
    to[j] = from_float<T>(value);
  }
}

}  // namespace

cudaError_t residual_norm(const ResidualNorm& o, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                          cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(o.x.dtype, [&]<typename T>(T) {
    const std::size_t bytes = static_cast<std::size_t>(cols) * sizeof(float);
    const cudaError_t status = cudaFuncSetAttribute(
        residual_norm_row<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (status != cudaSuccess) return status;
    residual_norm_row<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, bytes, stream>>>(
        o, cols, typed<const float>(o.h_in), typed<const T>(o.delta[0]), typed<const T>(o.delta[1]),
        typed<float>(o.h_out), typed<T>(o.x));
    return cudaGetLastError();
  });
}

}  // namespace mezzo::cuda
