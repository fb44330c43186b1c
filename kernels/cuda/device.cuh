#pragma once
// Helpers of the kernels' own files: element types, reductions in a fixed order, launches.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/matrices.h"

namespace mezzo::cuda {

using bf16 = __nv_bfloat16;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }

/// Element j of fp32s or bf16s.
__device__ inline float element(const void* data, DType dtype, std::int64_t j) {
  return dtype == DType::f32 ? static_cast<const float*>(data)[j]
                             : to_float(static_cast<const bf16*>(data)[j]);
}

template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

/// Matrices whose element type is known.
template <typename T>
struct Typed {
  T* data;
  std::int64_t row_stride;
  std::int64_t copy_stride;

  __device__ T* row(std::int64_t copy, std::int64_t i) const {
    return data + copy * copy_stride + i * row_stride;
  }
};

template <typename T>
Typed<T> typed(const Matrices& m) {
  return {static_cast<T*>(m.data), m.row_stride, m.copy_stride};
}

/// f(element of the type that `dtype` names); activations and weights are fp32 or bf16.
template <typename F>
cudaError_t by_type(DType dtype, F f) {
  if (dtype == DType::f32) return f(float{});
  if (dtype == DType::bf16) return f(bf16{});
  return cudaErrorInvalidValue;
}

/// Rotary positions of one pair, the same bits in every kernel: first = a cosine - b sine, second = a sine +
/// b cosine, the product with b rounded before the sum.
__device__ inline void rotate_pair(float& a, float& b, float cosine, float sine) {
  const float first = __fmaf_rn(a, cosine, -__fmul_rn(b, sine));
  b = __fmaf_rn(a, sine, __fmul_rn(b, cosine));
  a = first;
}

inline std::uint32_t blocks(std::int64_t count, std::int64_t a_block) {
  return static_cast<std::uint32_t>((count + a_block - 1) / a_block);
}

/// Eight neighbouring values, 16 or 32 bytes.
__device__ inline void load8(const float* from, float* to) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
__device__ inline void load8(const bf16* from, float* to) {
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  const std::uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(word[i] << 16);
    to[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
  }
}
__device__ inline void store8(float* to, const float* from) {
  reinterpret_cast<float4*>(to)[0] = make_float4(from[0], from[1], from[2], from[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(from[4], from[5], from[6], from[7]);
}
__device__ inline void store8(bf16* to, const float* from) {
  __nv_bfloat162 pair[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pair[i] = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pair);
}

/// Whether load8 and store8 may be used on every eighth column.
__host__ __device__ inline bool in_eights(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}
inline bool in_eights(const Matrices& m) {
  return in_eights(m.data) && m.row_stride % 8 == 0 && m.copy_stride % 8 == 0;
}

__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/// Sum over a block of whole warps, the same bits for every thread: warps in order of their numbers.
__device__ inline float block_sum(float x) {
  __shared__ float sums[32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = warp_sum(x);
  __syncthreads();  // the last call's sums have been read
  if (threadIdx.x % 32 == 0) sums[warp] = x;
  __syncthreads();
  float total = 0.0f;
  for (int i = 0; i < warps; ++i) total += sums[i];
  return total;
}

__device__ inline float block_max(float x) {
  __shared__ float largest[32];
  const int warps = static_cast<int>(blockDim.x) / 32;
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = x;
  __syncthreads();
  float total = largest[0];
  for (int i = 1; i < warps; ++i) total = fmaxf(total, largest[i]);
  return total;
}

/// How many of `count` ascending values are below `wanted`.
template <typename T>
__device__ inline std::int64_t lower_bound(const T* values, std::int64_t count, std::int64_t wanted) {
  std::int64_t first = 0;
  while (count > 0) {
    const std::int64_t half = count / 2;
    if (values[first + half] < wanted) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}
/// Which of `count` ranges, each up to where the next begins, holds `place`: the last that begins at or
/// before it.
template <typename T>
__device__ inline std::int64_t range_at(const T* begins, std::int64_t count, std::int64_t place) {
  return lower_bound(begins + 1, count, place + 1);
}

__device__ inline void report(std::uint32_t* fault, Fault what) { *fault = static_cast<std::uint32_t>(what); }

}  // namespace mezzo::cuda
