#include "kernels/cuda/norm.h"

#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

constexpr int threads = 256;
constexpr std::int64_t most_head_dim = 256;

/// One block a row; the row's sum waits in shared memory between the passes.
template <typename T, typename H>
__global__ void residual_norm_row(ResidualNorm o, std::int64_t cols, Typed<const H> h_in,
                                  Typed<const T> first, Typed<const T> second, Typed<float> h_out,
                                  Typed<T> x) {
  extern __shared__ float sum[];
  const std::int64_t i = blockIdx.x;
  const std::int64_t copy = blockIdx.y;
  const H* h = h_in.row(copy, i);
  const T* d0 = o.deltas > 0 ? first.row(copy, i) : nullptr;
  const T* d1 = o.deltas > 1 ? second.row(copy, i) : nullptr;
  float* stored = o.h_out.data != nullptr ? h_out.row(copy, i) : nullptr;
  float total = 0.0f;
  for (std::int64_t j = threadIdx.x; j < cols; j += threads) {
    float value = to_float(h[j]);
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
template <typename T, typename H, int groups>
__global__ void __launch_bounds__(threads)
    residual_norm_groups(ResidualNorm o, int cols, Typed<const H> h_in, Typed<const T> first,
                         Typed<const T> second, Typed<float> h_out, Typed<T> x) {
  const std::int64_t i = blockIdx.x;
  const std::int64_t copy = blockIdx.y;
  const H* h = h_in.row(copy, i);
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

/// Sum over groups of `lanes` neighbouring lanes.
template <int lanes>
__device__ inline float group_sum(float x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// The norm of each head's columns in place: `lanes` lanes a row and head, `unit` neighbouring columns each,
/// `units` times. Columns from head_dim on are not there.
template <typename T, int lanes, int unit, int units>
__global__ void __launch_bounds__(threads) norm_head(Typed<T> x, std::int64_t rows, HeadNorm o) {
  const std::int64_t place = (std::int64_t{blockIdx.x} * threads + threadIdx.x) / lanes;
  const bool there = place < rows * o.heads;  // all lanes take part in the sums
  const auto head_dim = static_cast<int>(o.head_dim);
  const int column = static_cast<int>(threadIdx.x) % lanes * unit;
  T* const head = there ? x.row(blockIdx.y, place / o.heads) + place % o.heads * o.head_dim : nullptr;
  float value[units][unit];
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < units; ++i) {
    const int j = i * lanes * unit + column;
#pragma unroll
    for (int e = 0; e < unit; ++e) value[i][e] = 0.0f;
    if (!there || j >= head_dim) continue;
    if constexpr (unit == 8) {
      load8(head + j, value[i]);
    } else {
      value[i][0] = to_float(head[j]);
    }
#pragma unroll
    for (int e = 0; e < unit; ++e) total += o.layer ? value[i][e] : value[i][e] * value[i][e];
  }
  const auto count = static_cast<float>(head_dim);
  float mean = 0.0f;
  float variance = group_sum<lanes>(total) / count;
  if (o.layer) {
    mean = variance;
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < units; ++i) {
#pragma unroll
      for (int e = 0; e < unit; ++e) {
        const float off = value[i][e] - mean;
        squares += i * lanes * unit + column < head_dim ? off * off : 0.0f;
      }
    }
    variance = group_sum<lanes>(squares) / count;
  }
  if (!there) return;
  const float scale = 1.0f / sqrtf(variance + o.epsilon);
#pragma unroll
  for (int i = 0; i < units; ++i) {
    const int j = i * lanes * unit + column;
    if (j >= head_dim) return;
#pragma unroll
    for (int e = 0; e < unit; ++e) {
      value[i][e] = (value[i][e] - mean) * scale * o.weight[j + e];
      if (o.bias != nullptr) value[i][e] += o.bias[j + e];
    }
    if constexpr (unit == 8) {
      store8(head + j, value[i]);
    } else {
      head[j] = from_float<T>(value[i][0]);
    }
  }
}

/// residual_norm() for rows of h_in of type H.
template <typename T, typename H>
cudaError_t launch(const ResidualNorm& o, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                   cudaStream_t stream) {
  const dim3 grid(blocks(rows, 1), blocks(copies, 1));
  const auto grouped = [&]<int groups>(std::integral_constant<int, groups>) {
    const auto block = static_cast<std::uint32_t>((cols / 8 + 32 * groups - 1) / (32 * groups) * 32);
    residual_norm_groups<T, H, groups><<<grid, block, 0, stream>>>(
        o, static_cast<int>(cols), typed<const H>(o.h_in), typed<const T>(o.delta[0]),
        typed<const T>(o.delta[1]), typed<float>(o.h_out), typed<T>(o.x));
    return cudaGetLastError();
  };
  if (in_groups(o, cols) && cols <= 8 * threads) return grouped(std::integral_constant<int, 1>());
  if (in_groups(o, cols) && cols <= 16 * threads) return grouped(std::integral_constant<int, 2>());
  if (in_groups(o, cols) && cols <= 32 * threads) return grouped(std::integral_constant<int, 4>());
  const std::size_t bytes = static_cast<std::size_t>(cols) * sizeof(float);
  const auto kernel = residual_norm_row<T, H>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status != cudaSuccess) return status;
  kernel<<<grid, threads, bytes, stream>>>(o, cols, typed<const H>(o.h_in), typed<const T>(o.delta[0]),
                                           typed<const T>(o.delta[1]), typed<float>(o.h_out), typed<T>(o.x));
  return cudaGetLastError();
}

}  // namespace

cudaError_t residual_norm(const ResidualNorm& o, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                          cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(o.x.dtype, [&]<typename T>(T) {
    if (o.h_in.dtype == DType::f32) return launch<T, float>(o, rows, cols, copies, stream);
    return o.h_in.dtype == o.x.dtype ? launch<T, T>(o, rows, cols, copies, stream) : cudaErrorInvalidValue;
  });
}

cudaError_t norm_heads(const HeadNorm& o, std::int64_t rows, std::int64_t copies, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (o.head_dim > most_head_dim) return cudaErrorInvalidValue;
  return by_type(o.x.dtype, [&]<typename T>(T) {
    const auto launch = [&]<int lanes, int unit>(std::integral_constant<int, lanes>,
                                                 std::integral_constant<int, unit>) {
      constexpr int units = unit == 8 ? 1 : static_cast<int>(most_head_dim) / lanes;
      norm_head<T, lanes, unit, units>
          <<<dim3(blocks(rows * o.heads * lanes, threads), blocks(copies, 1)), threads, 0, stream>>>(
              typed<T>(o.x), rows, o);
      return cudaGetLastError();
    };
    constexpr std::integral_constant<int, 8> eight;
    if (o.head_dim % 8 != 0 || !in_eights(o.x))
      return launch(std::integral_constant<int, 32>(), std::integral_constant<int, 1>());
    if (o.head_dim <= 64) return launch(std::integral_constant<int, 8>(), eight);
    if (o.head_dim <= 128) return launch(std::integral_constant<int, 16>(), eight);
    return launch(std::integral_constant<int, 32>(), eight);
  });
}

}  // namespace mezzo::cuda
