#include "kernels/cuda/tail.h"

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"
#include "mezzo/core/noise.h"

namespace mezzo::cuda {
namespace {

__global__ void perturb_quads(Factors factors, NoiseKind noise, const Perturbation* perturbations, float* out,
                              std::int64_t copy_stride) {
  const Factor& f = factors.factor[blockIdx.y];
  const Perturbation p = perturbations[blockIdx.z];
  const std::int64_t quad = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * quad >= f.count) return;
  float* to = out + blockIdx.z * copy_stride + f.begin;
  NoiseQuad z = {};
  if (p.epsilon != 0.0f) z = noise4(noise, p.seed, f.tensor, static_cast<std::uint64_t>(quad));
  const float epsilon = p.factor_epsilon(f.unscaled);
  for (int i = 0; i < 4 && 4 * quad + i < f.count; ++i) {
    const float value = f.value != nullptr ? f.value[4 * quad + i] : 0.0f;
    to[4 * quad + i] = epsilon != 0.0f ? ieee::fma(epsilon, z.value[i], value) : value;
  }
}

constexpr int project_warps = 4;
constexpr int warp_rows = 4;
constexpr int pass_ranks = 8;

/// A warp: `warp_rows` rows by `pass_ranks` ranks, the columns spread over its lanes.
template <typename T>
__global__ void __launch_bounds__(project_warps * 32)
    project_rows(Typed<const T> x, std::int64_t rows, std::int64_t in, const float* a,
                 std::int64_t a_copy_stride, std::int64_t ranks, float* s) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t row = (std::int64_t{blockIdx.x} * project_warps + threadIdx.x / 32) * warp_rows;
  if (row >= rows) return;
  const std::int64_t rank = std::int64_t{blockIdx.y} * pass_ranks;
  const std::int64_t copy = blockIdx.z;
  const float* a_row = a + copy * a_copy_stride + rank * in;
  float sum[warp_rows][pass_ranks] = {};
  for (std::int64_t j = lane; j < in; j += 32) {
    float value[warp_rows];
#pragma unroll
    for (int i = 0; i < warp_rows; ++i) value[i] = row + i < rows ? to_float(x.row(copy, row + i)[j]) : 0.0f;
#pragma unroll
    for (int k = 0; k < pass_ranks; ++k) {
      const float factor = rank + k < ranks ? a_row[k * in + j] : 0.0f;
#pragma unroll
      for (int i = 0; i < warp_rows; ++i) sum[i][k] = fmaf(factor, value[i], sum[i][k]);
    }
  }
#pragma unroll
  for (int i = 0; i < warp_rows; ++i) {
#pragma unroll
    for (int k = 0; k < pass_ranks; ++k) {
      const float whole = warp_sum(sum[i][k]);
      if (lane == 0 && row + i < rows && rank + k < ranks) {
        s[(copy * rows + row + i) * ranks + rank + k] = whole;
      }
    }
  }
}

constexpr int finish_cols = 128;
constexpr int finish_rows = 8;

/// value[c][i] of rows [t, t + finish_rows) of copy p, up to `end`, in columns j and j + 1 of one part; the
/// second is the first again where `alone`.
__device__ inline void part_values(const Finish& o, const Column& c, std::int64_t p, std::int64_t t,
                                   std::int64_t end, std::int64_t j, bool alone,
                                   float (&value)[2][finish_rows]) {
  const std::int64_t second = alone ? 0 : 1;
  const int rank = static_cast<int>(c.rank);
  const float* b[2] = {c.b + p * o.b_copy_stride + j * c.rank, nullptr};
  b[1] = b[0] + second * c.rank;
  const float* const s = o.s + (p * o.rows + t) * o.ranks + c.rank_begin;
  const int last = static_cast<int>(end - 1 - t);
  float tail[2][finish_rows] = {};
  for (int k0 = 0; k0 < rank; k0 += pass_ranks) {
    float factor[2][pass_ranks];
#pragma unroll
    for (int k = 0; k < pass_ranks; ++k) {
      factor[0][k] = k0 + k < rank ? b[0][k0 + k] : 0.0f;
      factor[1][k] = k0 + k < rank ? b[1][k0 + k] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < finish_rows; ++i) {
      const float* const row = s + min(i, last) * o.ranks + k0;
#pragma unroll
      for (int k = 0; k < pass_ranks; ++k) {
        if (k0 + k >= rank) continue;
        const float each = row[k];
        tail[0][i] = fmaf(factor[0][k], each, tail[0][i]);
        tail[1][i] = fmaf(factor[1][k], each, tail[1][i]);
      }
    }
  }
  const float bias[2] = {c.bias != nullptr ? element(c.bias, c.bias_dtype, j) : 0.0f,
                         c.bias != nullptr ? element(c.bias, c.bias_dtype, j + second) : 0.0f};
  const float* const base = o.base + (p * o.base_rows + t - o.first) * o.base_stride + c.begin + j;
#pragma unroll
  for (int i = 0; i < finish_rows; ++i) {
    const float* const from = base + min(i, last) * o.base_stride;
    value[0][i] = from[0] + bias[0];
    value[1][i] = from[second] + bias[1];
    if (rank > 0) {
      value[0][i] = fmaf(c.scaling, tail[0][i], value[0][i]);
      value[1][i] = fmaf(c.scaling, tail[1][i], value[1][i]);
    }
  }
}

template <typename T, bool gated>
__global__ void __launch_bounds__(finish_cols) finish_block(Finish o, std::int64_t first_copy, Typed<T> y) {
  // Copies are neighbours: where they share W x it is read once.
  const std::int64_t p = first_copy + blockIdx.x;
  const std::int64_t begin = max(std::int64_t{0}, o.first - p * o.base_rows);
  const std::int64_t end = min(o.rows, o.first + o.count - p * o.base_rows);
  const std::int64_t t = begin + std::int64_t{blockIdx.z} * finish_rows;
  // Two neighbouring columns a thread; the last one alone where their number is odd.
  const std::int64_t first = 2 * (std::int64_t{blockIdx.y} * finish_cols + threadIdx.x);
  if (t >= end || first >= o.cols) return;
  const bool alone = first + 1 == o.cols;
  float value[2][finish_rows];
  part_values(o, o.column[0], p, t, end, first, alone, value);
#pragma unroll
  for (int i = 0; i < 2 * finish_rows; ++i) {
    float& each = value[i / finish_rows][i % finish_rows];
    each = apply(o.curve, each);
  }
  if constexpr (gated) {
    float up[2][finish_rows];
    part_values(o, o.column[1], p, t, end, first, alone, up);
#pragma unroll
    for (int i = 0; i < 2 * finish_rows; ++i)
      value[i / finish_rows][i % finish_rows] *= up[i / finish_rows][i % finish_rows];
  }
  struct alignas(2 * sizeof(T)) Pair {
    T x[2];
  };
#pragma unroll
  for (int i = 0; i < finish_rows; ++i) {
    if (t + i >= end) break;
    T* const to = y.row(p, t + i) + first;
    const Pair pair = {{from_float<T>(value[0][i]), from_float<T>(value[1][i])}};
    if (!alone && reinterpret_cast<std::uintptr_t>(to) % sizeof(Pair) == 0) {
      *reinterpret_cast<Pair*>(to) = pair;
    } else {
      to[0] = pair.x[0];
      if (!alone) to[1] = pair.x[1];
    }
  }
}

}  // namespace

cudaError_t perturb(const Factors& factors, NoiseKind noise, const Perturbation* perturbations,
                    std::int64_t copies, float* out, std::int64_t copy_stride, cudaStream_t stream) {
  std::int64_t largest = 0;
  for (int i = 0; i < factors.count; ++i) largest = std::max(largest, factors.factor[i].count);
  if (largest == 0 || copies == 0) return cudaSuccess;
  constexpr int threads = 128;
  const dim3 grid(blocks(largest, 4 * threads), static_cast<std::uint32_t>(factors.count), blocks(copies, 1));
  perturb_quads<<<grid, threads, 0, stream>>>(factors, noise, perturbations, out, copy_stride);
  return cudaGetLastError();
}

cudaError_t project(Matrices x, std::int64_t rows, std::int64_t in, const float* a,
                    std::int64_t a_copy_stride, std::int64_t ranks, std::int64_t copies, float* s,
                    cudaStream_t stream) {
  if (rows == 0 || ranks == 0) return cudaSuccess;
  const dim3 grid(blocks(rows, project_warps * warp_rows), blocks(ranks, pass_ranks), blocks(copies, 1));
  return by_type(x.dtype, [&]<typename T>(T) {
    project_rows<T>
        <<<grid, project_warps * 32, 0, stream>>>(typed<const T>(x), rows, in, a, a_copy_stride, ranks, s);
    return cudaGetLastError();
  });
}

cudaError_t finish(const Finish& o, std::int64_t copies, cudaStream_t stream) {
  if (o.count == 0 || o.cols == 0) return cudaSuccess;
  // The copies that the range touches, and the most rows of one of them.
  std::int64_t first_copy = 0;
  std::int64_t most_rows = o.count;
  if (o.base_rows > 0) {
    first_copy = o.first / o.base_rows;
    copies = (o.first + o.count - 1) / o.base_rows - first_copy + 1;
    most_rows = std::min(o.count, o.base_rows);
  }
  const dim3 grid(blocks(copies, 1), blocks(o.cols, 2 * finish_cols), blocks(most_rows, finish_rows));
  return by_type(o.y.dtype, [&]<typename T>(T) {
    if (o.gated) {
      finish_block<T, true><<<grid, finish_cols, 0, stream>>>(o, first_copy, typed<T>(o.y));
    } else {
      finish_block<T, false><<<grid, finish_cols, 0, stream>>>(o, first_copy, typed<T>(o.y));
    }
    return cudaGetLastError();
  });
}

}  // namespace mezzo::cuda
