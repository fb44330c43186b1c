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

/// The same with rows of aligned groups of eight: the sum stays in registers, `groups` of eight a thread.
template <typename T, int groups>
__global__ void __launch_bounds__(threads)
    residual_norm_groups(ResidualNorm o, int cols, Typed<const float> h_in, Typed<const T> first,
                         Typed<const T> second, Typed<float> h_out, Typed<T> x) {
  const std::int64_t i = blockIdx.x;
  const std::int64_t copy = blockIdx.y;
  const float* h = h_in.row(copy, i);
  float sum[groups][8];
  float total = 0.0f;
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    const int j = 8 * static_cast<int>(threadIdx.x + g * blockDim.x);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[g][e] = 0.0f;
    if (j >= cols) continue;
    load8(h + j, sum[g]);
    float more[8];
    if (o.deltas > 0) {
      load8(first.row(copy, i) + j, more);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[g][e] += more[e];
    }
    if (o.deltas > 1) {
      load8(second.row(copy, i) + j, more);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[g][e] += more[e];
    }
    if (o.h_out.data != nullptr) store8(h_out.row(copy, i) + j, sum[g]);
#pragma unroll
    for (int e = 0; e < 8; ++e) total += o.layer ? sum[g][e] : sum[g][e] * sum[g][e];
  }
  const auto count = static_cast<float>(cols);
  float mean = 0.0f;
  float variance = block_sum(total) / count;
  if (o.layer) {
    mean = variance;
    float squares = 0.0f;
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      const int j = 8 * static_cast<int>(threadIdx.x + g * blockDim.x);
      if (j >= cols) continue;
#pragma unroll
      for (int e = 0; e < 8; ++e) squares += (sum[g][e] - mean) * (sum[g][e] - mean);
    }
    variance = block_sum(squares) / count;
  }
  const float scale = 1.0f / sqrtf(variance + o.epsilon);
#pragma unroll
  for (int g = 0; g < groups; ++g) {
    const int j = 8 * static_cast<int>(threadIdx.x + g * blockDim.x);
    if (j >= cols) continue;
    float weight[8];
    load8(o.weight + j, weight);
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[g][e] = (sum[g][e] - mean) * scale * weight[e];
    if (o.bias != nullptr) {
      load8(o.bias + j, weight);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[g][e] += weight[e];
    }
    store8(x.row(copy, i) + j, sum[g]);
  }
}

bool in_groups(const ResidualNorm& o, std::int64_t cols) {
  bool whole = cols % 8 == 0 && in_eights(o.weight) && in_eights(o.bias);
  for (const Matrices& m : {o.h_in, o.delta[0], o.delta[1], o.h_out, o.x}) whole = whole && in_eights(m);
  return whole;
}

}  // namespace

cudaError_t residual_norm(const ResidualNorm& o, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                          cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(o.x.dtype, [&]<typename T>(T) {
    const auto grouped = [&]<int groups>(std::integral_constant<int, groups>) {
      const auto block = static_cast<std::uint32_t>((cols / 8 + 32 * groups - 1) / (32 * groups) * 32);
      residual_norm_groups<T, groups><<<dim3(blocks(rows, 1), blocks(copies, 1)), block, 0, stream>>>(
          o, static_cast<int>(cols), typed<const float>(o.h_in), typed<const T>(o.delta[0]),
          typed<const T>(o.delta[1]), typed<float>(o.h_out), typed<T>(o.x));
      return cudaGetLastError();
    };
    if (in_groups(o, cols) && cols <= 8 * threads) return grouped(std::integral_constant<int, 1>());
    if (in_groups(o, cols) && cols <= 16 * threads) return grouped(std::integral_constant<int, 2>());
    if (in_groups(o, cols) && cols <= 32 * threads) return grouped(std::integral_constant<int, 4>());
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
