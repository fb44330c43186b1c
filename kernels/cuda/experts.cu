#include "kernels/cuda/experts.h"

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"
#include "mezzo/core/noise.h"

namespace mezzo::cuda {
namespace {

constexpr int threads = 256;

// ---- W x: a block has 64 rows by 64 columns, a thread 4 by 4 of them

constexpr int tile = 64;
constexpr int step = 16;

template <typename T>
__global__ void __launch_bounds__(threads) multiply_tile(ExpertRows r, ExpertWeights w, const T* x,
                                                         const T* weight, float* y, std::int64_t y_stride) {
  __shared__ float rows[step][tile + 4];
  __shared__ float columns[step][tile + 4];
  const std::int64_t row0 = std::int64_t{blockIdx.x} * tile;
  const std::int64_t column0 = std::int64_t{blockIdx.y} * tile;
  const std::int64_t end = min(row0 + tile, r.count);
  const int i0 = static_cast<int>(threadIdx.x) / 16 * 4;
  const int j0 = static_cast<int>(threadIdx.x) % 16 * 4;
  const int experts = static_cast<int>(r.experts);
  for (auto e = static_cast<int>(range_at(r.begins, experts, r.first + row0));
       e < experts && r.begins[e] - r.first < end; ++e) {
    const T* const own = weight + e * w.expert_stride;
    float sum[4][4] = {};
    for (std::int64_t k0 = 0; k0 < w.in; k0 += step) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < tile * step; i += threads) {
        const std::int64_t k = k0 + i % step;
        const std::int64_t row = row0 + i / step;
        const std::int64_t column = column0 + i / step;
        rows[i % step][i / step] = k < w.in && row < end ? to_float(x[row * r.x_stride + k]) : 0.0f;
        columns[i % step][i / step] =
            k < w.in && column < w.out ? to_float(own[column * w.row_stride + k]) : 0.0f;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < step; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[k][i0 + i], columns[k][j0 + j], sum[i][j]);
        }
      }
    }
    const std::int64_t first = max(r.begins[e] - r.first, row0);
    const std::int64_t last = min(r.begins[e + 1] - r.first, end);
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = row0 + i0 + i;
      for (int j = 0; j < 4; ++j) {
        if (row >= first && row < last && column0 + j0 + j < w.out)
          y[row * y_stride + column0 + j0 + j] = sum[i][j];
      }
    }
  }
}

// ---- low-rank terms: a block has the places of one copy and expert, whose factors it makes once

/// Places [begin, end) of a copy and expert, as the copy's rows of x, s and y say: `apart` from those of copy
/// 0.
struct Segment {
  std::int64_t begin, end;
};
__device__ inline Segment segment_of(const ExpertPlaces& p, std::int64_t copy, int expert) {
  const std::int64_t width = p.experts + 1;
  if (p.shared) return {p.begins[expert], p.begins[expert + 1]};
  const std::int64_t begin = p.begins[copy * width + expert];
  return {begin, copy + 1 < p.copies ? p.begins[(copy + 1) * width + expert] : p.begins[expert + 1]};
}
/// The place's row of a matrix for each copy.
template <typename T>
__device__ inline T* row_at(const Typed<T>& m, const ExpertPlaces& p, std::int64_t copy, std::int64_t place) {
  return p.shared ? m.row(copy, place) : m.row(place / p.a_copy, place % p.a_copy);
}
__device__ inline std::int64_t s_row(const ExpertPlaces& p, std::int64_t copy, std::int64_t place) {
  return p.shared ? copy * p.a_copy + place : place;
}

constexpr int pass = 8;  // ranks at a time
constexpr int project_cols = 128;
constexpr int warp_rows = 4;
constexpr int block_rows = threads / 32 * warp_rows;

template <typename T>
__global__ void __launch_bounds__(threads)
    project_segment(Typed<const T> x, std::int64_t in, ExpertPlaces places, ExpertTails tails,
                    NoiseKind noise, const Perturbation* perturbations, std::int64_t ranks, float* s) {
  __shared__ float factor[pass][project_cols];
  const int own = static_cast<int>(blockIdx.x) % tails.count;
  const std::int64_t copy = blockIdx.x / static_cast<std::uint32_t>(tails.count);
  const Perturbation probe = perturbations[copy];
  const Segment segment = segment_of(places, copy, tails.first + own);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (std::int64_t row0 = segment.begin + std::int64_t{blockIdx.y} * block_rows; row0 < segment.end;
       row0 += std::int64_t{gridDim.y} * block_rows) {
    const std::int64_t row = row0 + warp * warp_rows;
    for (int part = 0; part < tails.parts; ++part) {
      const ExpertTail& tail = tails.tail[own * tails.parts + part];
      for (int rank0 = 0; rank0 < tail.rank; rank0 += pass) {
        float sum[warp_rows][pass] = {};
        for (std::int64_t k0 = 0; k0 < in; k0 += project_cols) {
          __syncthreads();
          for (int i = static_cast<int>(threadIdx.x); i < pass * project_cols / 4; i += threads) {
            const int rank = rank0 + i / (project_cols / 4);
            const std::int64_t k = k0 + i % (project_cols / 4) * 4;
            const std::int64_t element = rank * in + k;
            NoiseQuad z = {};
            if (rank < tail.rank && k < in && in % 4 == 0)
              z = noise4(noise, probe.seed, tail.a_noise, static_cast<std::uint64_t>(element / 4));
            for (int j = 0; j < 4; ++j) {
              float value = 0.0f;
              if (rank < tail.rank && k + j < in) {
                const float normal = in % 4 == 0 ? z.value[j]
                                                 : noise_at(noise, probe.seed, tail.a_noise,
                                                            static_cast<std::uint64_t>(element + j));
                value = ieee::fma(probe.factor_epsilon(tail.a == nullptr), normal,
                                  tail.a != nullptr ? tail.a[element + j] : 0.0f);
              }
              factor[i / (project_cols / 4)][i % (project_cols / 4) * 4 + j] = value;
            }
          }
          __syncthreads();
          for (int k = lane; k < project_cols && k0 + k < in; k += 32) {
            float value[warp_rows];
#pragma unroll
            for (int i = 0; i < warp_rows; ++i)
              value[i] = row + i < segment.end ? to_float(row_at(x, places, copy, row + i)[k0 + k]) : 0.0f;
#pragma unroll
            for (int k1 = 0; k1 < pass; ++k1) {
#pragma unroll
              for (int i = 0; i < warp_rows; ++i) sum[i][k1] = fmaf(factor[k1][k], value[i], sum[i][k1]);
            }
          }
        }
#pragma unroll
        for (int i = 0; i < warp_rows; ++i) {
#pragma unroll
          for (int k = 0; k < pass; ++k) {
            const float whole = warp_sum(sum[i][k]);
            if (lane == 0 && row + i < segment.end && rank0 + k < tail.rank)
              s[s_row(places, copy, row + i) * ranks + tail.rank_begin + rank0 + k] = whole;
          }
        }
      }
    }
  }
}

constexpr int finish_cols = 64;

/// factor [parts][rank][finish_cols] in shared memory: the parts' B of the block's columns, with their noise.
template <typename T>
__global__ void __launch_bounds__(threads)
    finish_segment(ExpertFinish o, ExpertPlaces places, ExpertTails tails, NoiseKind noise,
                   const Perturbation* perturbations, Typed<T> y) {
  extern __shared__ float factor[];
  const int own = static_cast<int>(blockIdx.x) % tails.count;
  const std::int64_t copy = o.copy + blockIdx.x / static_cast<std::uint32_t>(tails.count);
  const std::int64_t column0 = std::int64_t{blockIdx.y} * finish_cols;
  Segment segment = segment_of(places, copy, tails.first + own);
  segment.begin = max(segment.begin, o.first);
  segment.end = min(segment.end, o.first + o.count);
  if (segment.begin >= segment.end) return;
  const Perturbation probe = perturbations[copy];
  const ExpertTail* const tail = tails.tail + own * tails.parts;
  float* part_factor[most_parts] = {factor, factor + tail[0].rank * finish_cols};
  for (int part = 0; part < tails.parts; ++part) {
    const ExpertTail& t = tail[part];
    for (int i = static_cast<int>(threadIdx.x); i < t.rank * finish_cols / 4; i += threads) {
      const std::int64_t element = column0 * t.rank + 4 * i;
      const NoiseQuad z = noise4(noise, probe.seed, t.b_noise, static_cast<std::uint64_t>(element / 4));
      for (int j = 0; j < 4; ++j) {
        const int column = (4 * i + j) / t.rank;
        const bool there = column0 + column < o.cols;
        part_factor[part][(4 * i + j) % t.rank * finish_cols + column] =
            there ? ieee::fma(probe.epsilon, z.value[j], t.b != nullptr ? t.b[element + j] : 0.0f) : 0.0f;
      }
    }
  }
  __syncthreads();
  const int column = static_cast<int>(threadIdx.x) % finish_cols;
  if (column0 + column >= o.cols) return;
  for (std::int64_t place = segment.begin + threadIdx.x / finish_cols; place < segment.end;
       place += threads / finish_cols) {
    const float* const base = o.base + (place - o.first) * o.base_stride + column0 + column;
    float value[most_parts] = {};
    for (int part = 0; part < tails.parts; ++part) {
      const ExpertTail& t = tail[part];
      float sum = 0.0f;
      if (t.rank > 0) {
        const float* const s = o.s + s_row(places, copy, place) * o.ranks + t.rank_begin;
        for (int k = 0; k < t.rank; ++k) sum = fmaf(part_factor[part][k * finish_cols + column], s[k], sum);
      }
      value[part] = fmaf(t.scaling, sum, base[part * o.cols]);
    }
    const float result = o.gated ? apply(o.curve, value[0]) * value[1] : apply(o.curve, value[0]);
    row_at(y, places, copy, place)[column0 + column] = from_float<T>(result);
  }
}

}  // namespace

cudaError_t multiply_experts(const ExpertRows& r, const ExpertWeights& w, float* y, std::int64_t y_stride,
                             cudaStream_t stream) {
  if (r.count == 0) return cudaSuccess;
  return by_type(r.dtype, [&]<typename T>(T) {
    multiply_tile<T><<<dim3(blocks(r.count, tile), blocks(w.out, tile)), threads, 0, stream>>>(
        r, w, static_cast<const T*>(r.x), static_cast<const T*>(w.data), y, y_stride);
    return cudaGetLastError();
  });
}

cudaError_t project_experts(Matrices x, std::int64_t in, const ExpertPlaces& places, const ExpertTails& tails,
                            NoiseKind noise, const Perturbation* perturbations, std::int64_t ranks, float* s,
                            cudaStream_t stream) {
  if (places.a_copy == 0 || tails.count == 0) return cudaSuccess;
  constexpr std::uint32_t most_row_blocks = 8;
  const dim3 grid(blocks(places.copies * tails.count, 1),
                  std::min(blocks(places.a_copy, block_rows), most_row_blocks));
  return by_type(x.dtype, [&]<typename T>(T) {
    project_segment<T>
        <<<grid, threads, 0, stream>>>(typed<const T>(x), in, places, tails, noise, perturbations, ranks, s);
    return cudaGetLastError();
  });
}

cudaError_t finish_experts(const ExpertFinish& o, const ExpertPlaces& places, const ExpertTails& tails,
                           NoiseKind noise, const Perturbation* perturbations, cudaStream_t stream) {
  if (o.count == 0 || tails.count == 0) return cudaSuccess;
  std::int64_t ranks = 0;
  for (int i = 0; i < tails.count; ++i) {
    std::int64_t own = 0;
    for (int part = 0; part < tails.parts; ++part) own += tails.tail[i * tails.parts + part].rank;
    ranks = std::max(ranks, own);
  }
  const std::size_t bytes = static_cast<std::size_t>(ranks) * finish_cols * sizeof(float);
  const dim3 grid(blocks(o.copies * tails.count, 1), blocks(o.cols, finish_cols));
  return by_type(o.y.dtype, [&]<typename T>(T) {
    const auto kernel = finish_segment<T>;
    if (const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                        static_cast<int>(bytes));
        status != cudaSuccess) {
      return status;
    }
    kernel<<<grid, threads, bytes, stream>>>(o, places, tails, noise, perturbations, typed<T>(o.y));
    return cudaGetLastError();
  });
}

}  // namespace mezzo::cuda
