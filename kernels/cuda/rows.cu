#include "kernels/cuda/rows.h"

#include <cuda_fp16.h>

#include "kernels/cuda/device.cuh"
#include "mezzo/core/noise.h"

namespace mezzo::cuda {
namespace {

template <typename T>
__global__ void embed_rows(Typed<const T> table, std::int64_t vocabulary, const std::int32_t* tokens,
                           std::int64_t token_stride, Typed<const T> positions_table, std::int64_t places,
                           const std::int32_t* positions, std::int64_t position_stride,
                           std::int64_t position_offset, std::int64_t cols, Typed<float> h,
                           std::uint32_t* fault) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t token = tokens[blockIdx.y * token_stride + t];
  if (token < 0 || token >= vocabulary) return report(fault, Fault::token);
  const T* word = table.row(0, token);
  const T* place = nullptr;
  if (positions_table.data != nullptr) {
    const std::int64_t position = positions[blockIdx.y * position_stride + t] + position_offset;
    if (position < 0 || position >= places) return report(fault, Fault::position);
    place = positions_table.row(0, position);
  }
  float* to = h.row(blockIdx.y, t);
  for (std::int64_t j = threadIdx.x; j < cols; j += blockDim.x) {
    float value = to_float(word[j]);
    if (place != nullptr) value += to_float(place[j]);
    to[j] = value;
  }
}

template <typename T>
__global__ void gather_rows(Typed<const T> x, std::int64_t x_rows, const std::int32_t* index, bool eights,
                            std::int64_t cols, Typed<T> out, std::uint32_t* fault) {
  const std::int64_t row = index[blockIdx.x];
  if (row < 0 || row >= x_rows) return report(fault, Fault::row);
  const T* from = x.row(blockIdx.y, row);
  T* to = out.row(blockIdx.y, blockIdx.x);
  if (eights) {
    constexpr std::int64_t unit = 16 / sizeof(T);
    for (std::int64_t j = unit * threadIdx.x; j < cols; j += unit * blockDim.x)
      *reinterpret_cast<uint4*>(to + j) = *reinterpret_cast<const uint4*>(from + j);
    return;
  }
  for (std::int64_t j = threadIdx.x; j < cols; j += blockDim.x) to[j] = from[j];
}

__global__ void scale_rows(Typed<float> h, float factor, std::int64_t cols) {
  float* const row = h.row(blockIdx.y, blockIdx.x);
  for (std::int64_t j = threadIdx.x; j < cols; j += blockDim.x) row[j] *= factor;
}

template <typename T>
__global__ void split_head_rows(Typed<const T> x, int heads, int head_dim, Typed<T> out) {
  const T* const from = x.row(blockIdx.y, blockIdx.x);
  T* const to = out.row(blockIdx.y, blockIdx.x);
  for (int j = static_cast<int>(threadIdx.x); j < 3 * heads * head_dim; j += static_cast<int>(blockDim.x)) {
    const int part = j / head_dim % 3;
    const int head = j / head_dim / 3;
    to[(part * heads + head) * head_dim + j % head_dim] = from[j];
  }
}

__device__ inline float as_float(float x) { return x; }
__device__ inline float as_float(double x) { return static_cast<float>(x); }
__device__ inline float as_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float as_float(__half x) { return __half2float(x); }

/// A thread rounds four columns of a row. `quads`: all rows of both begin on whole vectors.
template <typename T>
__global__ void round_rows(Typed<T> out, const float* source, std::int64_t cols, bool quads) {
  const std::int64_t j = 4 * (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x);
  if (j >= cols) return;
  const float* const from = source + std::int64_t{blockIdx.x} * cols + j;
  T* const to = out.row(0, blockIdx.x) + j;
  if (quads) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    struct alignas(4 * sizeof(T)) Quad {
      T x[4];
    };
    *reinterpret_cast<Quad*>(to) = {
        {from_float<T>(four.x), from_float<T>(four.y), from_float<T>(four.z), from_float<T>(four.w)}};
    return;
  }
  for (std::int64_t i = 0; i < 4 && j + i < cols; ++i) to[i] = from_float<T>(from[i]);
}

template <typename T, typename S>
__global__ void convert_elements(Typed<T> out, const S* source, std::int64_t rows, std::int64_t cols,
                                 bool transposed) {
  const std::int64_t e = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (e >= rows * cols) return;
  const std::int64_t i = e / cols;
  const std::int64_t j = e % cols;
  out.row(0, i)[j] = from_float<T>(as_float(source[transposed ? j * rows + i : e]));
}

template <typename T>
__global__ void to_dense_elements(Typed<const T> x, std::int64_t rows, std::int64_t cols, std::int64_t count,
                                  float* out) {
  const std::int64_t e = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (e >= count) return;
  const std::int64_t j = e % cols;
  const std::int64_t i = e / cols % rows;
  out[e] = to_float(x.row(e / cols / rows, i)[j]);
}

template <typename T>
__global__ void fill_elements(T* out, std::int64_t count) {
  const std::int64_t quad = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * quad >= count) return;
  const NoiseQuad z = normal_block(0, 0, static_cast<std::uint64_t>(quad));
  for (std::int64_t i = 0; i < 4 && 4 * quad + i < count; ++i) out[4 * quad + i] = from_float<T>(z.value[i]);
}

template <typename T>
__global__ void fill_rows(Typed<T> out, std::int64_t count, std::int64_t cols, std::uint64_t seed,
                          float scale) {
  const std::int64_t quad = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * quad >= count) return;
  const NoiseQuad z = noise4(NoiseKind::gaussian, seed, 0, static_cast<std::uint64_t>(quad));
  for (std::int64_t e = 4 * quad; e < 4 * quad + 4 && e < count; ++e) {
    out.row(0, e / cols)[e % cols] = from_float<T>(ieee::mul(z.value[e % 4], scale));
  }
}

__global__ void compare_rows(const unsigned char* a, const unsigned char* b, std::int64_t row_bytes,
                             std::int64_t stride_bytes, std::uint32_t* differences) {
  const std::int64_t first = std::int64_t{blockIdx.x} * stride_bytes;
  std::uint32_t found = 0;
  for (std::int64_t j = threadIdx.x; j < row_bytes; j += blockDim.x) found += a[first + j] != b[first + j];
  if (found != 0) atomicAdd(differences, found);
}

constexpr int threads = 256;

}  // namespace

cudaError_t embed(Matrices table, std::int64_t vocabulary, const std::int32_t* tokens,
                  std::int64_t token_stride, Matrices positions_table, std::int64_t places,
                  const std::int32_t* positions, std::int64_t position_stride, std::int64_t position_offset,
                  std::int64_t rows, std::int64_t cols, std::int64_t copies, Matrices h, std::uint32_t* fault,
                  cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(table.dtype, [&]<typename T>(T) {
    embed_rows<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, 0, stream>>>(
        typed<const T>(table), vocabulary, tokens, token_stride, typed<const T>(positions_table), places,
        positions, position_stride, position_offset, cols, typed<float>(h), fault);
    return cudaGetLastError();
  });
}

cudaError_t gather(Matrices x, std::int64_t x_rows, const std::int32_t* index, std::int64_t rows,
                   std::int64_t cols, std::int64_t copies, Matrices out, std::uint32_t* fault,
                   cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(x.dtype, [&]<typename T>(T) {
    const bool eights = cols % 8 == 0 && in_eights(x) && in_eights(out);
    gather_rows<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, 0, stream>>>(
        typed<const T>(x), x_rows, index, eights, cols, typed<T>(out), fault);
    return cudaGetLastError();
  });
}

cudaError_t scale(Matrices h, float factor, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                  cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (h.dtype != DType::f32) return cudaErrorInvalidValue;
  scale_rows<<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, 0, stream>>>(typed<float>(h), factor, cols);
  return cudaGetLastError();
}

cudaError_t split_heads(Matrices x, std::int64_t heads, std::int64_t head_dim, std::int64_t rows,
                        std::int64_t copies, Matrices out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return by_type(x.dtype, [&]<typename T>(T) {
    split_head_rows<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), threads, 0, stream>>>(
        typed<const T>(x), static_cast<int>(heads), static_cast<int>(head_dim), typed<T>(out));
    return cudaGetLastError();
  });
}

cudaError_t assign(Matrices out, const float* source, std::int64_t rows, std::int64_t cols,
                   cudaStream_t stream) {
  if (rows * cols == 0) return cudaSuccess;
  return by_type(out.dtype, [&]<typename T>(T) {
    const bool quads = cols % 4 == 0 && out.row_stride % 4 == 0 &&
                       reinterpret_cast<std::uintptr_t>(source) % sizeof(float4) == 0 &&
                       reinterpret_cast<std::uintptr_t>(out.data) % (4 * sizeof(T)) == 0;
    round_rows<<<dim3(blocks(rows, 1), blocks(cols, 4 * threads)), threads, 0, stream>>>(typed<T>(out),
                                                                                         source, cols, quads);
    return cudaGetLastError();
  });
}

cudaError_t convert(Matrices out, const void* source, DType source_dtype, std::int64_t rows,
                    std::int64_t cols, bool transposed, cudaStream_t stream) {
  if (rows * cols == 0) return cudaSuccess;
  return by_type(out.dtype, [&]<typename T>(T) {
    const auto launch = [&](const auto* from) {
      convert_elements<<<blocks(rows * cols, threads), threads, 0, stream>>>(typed<T>(out), from, rows, cols,
                                                                             transposed);
      return cudaGetLastError();
    };
    switch (source_dtype) {
      case DType::f32:
        return launch(static_cast<const float*>(source));
      case DType::f16:
        return launch(static_cast<const __half*>(source));
      case DType::bf16:
        return launch(static_cast<const bf16*>(source));
      case DType::f64:
        return launch(static_cast<const double*>(source));
      default:
        return cudaErrorInvalidValue;
    }
  });
}

cudaError_t to_dense(Matrices x, std::int64_t rows, std::int64_t cols, std::int64_t copies, float* out,
                     cudaStream_t stream) {
  const std::int64_t count = copies * rows * cols;
  if (count == 0) return cudaSuccess;
  return by_type(x.dtype, [&]<typename T>(T) {
    to_dense_elements<T>
        <<<blocks(count, threads), threads, 0, stream>>>(typed<const T>(x), rows, cols, count, out);
    return cudaGetLastError();
  });
}

cudaError_t fill_normal(Matrices out, std::int64_t rows, std::int64_t cols, std::uint64_t seed, float scale,
                        cudaStream_t stream) {
  const std::int64_t count = rows * cols;
  if (count == 0) return cudaSuccess;
  return by_type(out.dtype, [&]<typename T>(T) {
    fill_rows<T><<<blocks(count, 4 * threads), threads, 0, stream>>>(typed<T>(out), count, cols, seed, scale);
    return cudaGetLastError();
  });
}

cudaError_t fill_normals(void* out, DType dtype, std::int64_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return by_type(dtype, [&]<typename T>(T) {
    fill_elements<T><<<blocks(count, 4 * threads), threads, 0, stream>>>(static_cast<T*>(out), count);
    return cudaGetLastError();
  });
}

cudaError_t count_differences(const void* a, const void* b, std::int64_t rows, std::int64_t row_bytes,
                              std::int64_t stride_bytes, std::uint32_t* differences, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  compare_rows<<<blocks(rows, 1), threads, 0, stream>>>(static_cast<const unsigned char*>(a),
                                                        static_cast<const unsigned char*>(b), row_bytes,
                                                        stride_bytes, differences);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
