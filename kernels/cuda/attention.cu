#include "kernels/cuda/attention.h"

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

template <typename T>
__global__ void rotate_row(Rotation r, const std::int32_t* positions, std::int64_t tokens,
                           const std::int32_t* row_index, Typed<T> x, std::uint32_t* fault) {
  const std::int64_t i = blockIdx.x;
  const std::int64_t token = row_index != nullptr ? row_index[i] : i;
  if (token < 0 || token >= tokens) return report(fault, Fault::row);
  const std::int64_t position = positions[token];
  if (position < 0 || position >= r.places) return report(fault, Fault::position);
  const std::int64_t half = r.dims / 2;
  T* row = x.row(blockIdx.y, i);
  for (std::int64_t pair = threadIdx.x; pair < r.heads * half; pair += blockDim.x) {
    const std::int64_t j = pair % half;
    T* head = row + pair / half * r.head_dim;
    T& first = head[r.half_split ? j : 2 * j];
    T& second = head[r.half_split ? j + half : 2 * j + 1];
    const float cosine = r.cosines[position * r.table_stride + j];
    const float sine = r.sines[position * r.table_stride + j];
    float a = to_float(first);
    float b = to_float(second);
    rotate_pair(a, b, cosine, sine);
    first = from_float<T>(a);
    second = from_float<T>(b);
  }
}

/// The same for whole words: dims in sixteens, heads in eights. A thread has 8 pairs of up to 4 heads, whose
/// cosines and sines it loads once; head_groups = heads / 4, rounded up.
constexpr int heads_a_thread = 4;
template <typename T>
__global__ void __launch_bounds__(256)
    rotate_words(Rotation r, const std::int32_t* positions, std::int64_t tokens,
                 const std::int32_t* row_index, std::int64_t rows, std::int32_t rows_a_block,
                 std::int32_t head_groups, Typed<T> x, std::uint32_t* fault) {
  const int half = static_cast<int>(r.dims) / 2;
  const int heads = static_cast<int>(r.heads);
  const int pieces = half / 8;
  const int a_row = pieces * head_groups;  // threads
  const std::int64_t row0 = std::int64_t{blockIdx.x} * rows_a_block;
  for (int e = static_cast<int>(threadIdx.x); e < a_row * rows_a_block; e += 256) {
    const std::int64_t i = row0 + e / a_row;
    if (i >= rows) return;
    const int j = e % a_row % pieces * 8;
    const int group = e % a_row / pieces;
    const std::int64_t token = row_index != nullptr ? row_index[i] : i;
    if (token < 0 || token >= tokens) {
      report(fault, Fault::row);
      continue;
    }
    const std::int64_t position = positions[token];
    if (position < 0 || position >= r.places) {
      report(fault, Fault::position);
      continue;
    }
    T* const row = x.row(blockIdx.y, i) + (r.half_split ? j : 2 * j);
    const int apart = r.half_split ? half : 8;
    float first[heads_a_thread][8], second[heads_a_thread][8], cosines[8], sines[8];
#pragma unroll
    for (int n = 0; n < heads_a_thread; ++n) {
      const int head = group + n * head_groups;
      if (head < heads) load8(row + head * r.head_dim, first[n]);
      if (head < heads) load8(row + head * r.head_dim + apart, second[n]);
    }
    load8(r.cosines + position * r.table_stride + j, cosines);
    load8(r.sines + position * r.table_stride + j, sines);
#pragma unroll
    for (int n = 0; n < heads_a_thread; ++n) {
      const int head = group + n * head_groups;
      if (head >= heads) break;
      if (r.half_split) {
#pragma unroll
        for (int p = 0; p < 8; ++p) rotate_pair(first[n][p], second[n][p], cosines[p], sines[p]);
      } else {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          rotate_pair(first[n][2 * p], first[n][2 * p + 1], cosines[p], sines[p]);
          rotate_pair(second[n][2 * p], second[n][2 * p + 1], cosines[p + 4], sines[p + 4]);
        }
      }
      store8(row + head * r.head_dim, first[n]);
      store8(row + head * r.head_dim + apart, second[n]);
    }
  }
}

// ---- attention: a block serves `block_queries` queries of one sequence and head, a warp `warp_queries` of
// them. Keys come in tiles of 32 from the sequence's first on, one a lane, so that a query's sums have one
// order wherever the sequence lies and whichever queries share its block.
constexpr int warps = 4;
constexpr int warp_queries = 4;
constexpr int block_queries = warps * warp_queries;
constexpr int tile_keys = 32;

/// Shared memory of a block, in floats. Rows of keys are an odd number of 16-byte words apart: lanes that
/// read the same place of 32 neighbouring keys meet no bank twice.
struct Tiles {
  int query_stride, key_stride, value_stride;

  __host__ __device__ Tiles(int head_dim, int dims_a_lane)
      : query_stride((head_dim + 3) / 4 * 4),
        key_stride(query_stride / 4 % 2 == 0 ? query_stride + 4 : query_stride),
        value_stride(32 * dims_a_lane) {}
  __host__ __device__ int keys_begin() const { return block_queries * query_stride; }
  __host__ __device__ int values_begin() const { return keys_begin() + tile_keys * key_stride; }
  __host__ __device__ int floats() const { return values_begin() + tile_keys * value_stride; }
};

/// tile[row][d] = from row `first + row`, column `column + d`; zero from row `rows` and column `width` on.
template <typename T>
__device__ void load_tile(float* tile, int tile_rows, int stride, Typed<const T> from, std::int64_t copy,
                          std::int64_t first, std::int64_t rows, std::int64_t column, int width) {
  for (int e = static_cast<int>(threadIdx.x); e < tile_rows * stride; e += warps * 32) {
    const int row = e / stride;
    const int d = e % stride;
    tile[e] = row < rows && d < width ? to_float(from.row(copy, first + row)[column + d]) : 0.0f;
  }
}

template <typename T, int dims_a_lane>
__global__ void __launch_bounds__(warps * 32)
    attend_tile(Attention a, std::int64_t tiles_a_sequence, Typed<const T> q, Typed<const T> k,
                Typed<const T> v, Typed<T> out) {
  extern __shared__ float4 shared[];
  const int head_dim = static_cast<int>(a.head_dim);
  const Tiles tiles(head_dim, dims_a_lane);
  float* const query_tile = reinterpret_cast<float*>(shared);
  float* const key_tile = query_tile + tiles.keys_begin();
  float* const value_tile = query_tile + tiles.values_begin();

  const std::int64_t sequence = blockIdx.x / tiles_a_sequence;
  const std::int64_t head = blockIdx.y;
  const std::int64_t copy = blockIdx.z;
  const std::int64_t begin = a.offsets[sequence];
  const std::int64_t end = a.offsets[sequence + 1];
  const std::int64_t first = a.query_rows != nullptr ? lower_bound(a.query_rows, a.queries, begin) : begin;
  const std::int64_t last = a.query_rows != nullptr ? lower_bound(a.query_rows, a.queries, end) : end;
  const std::int64_t q0 = first + blockIdx.x % tiles_a_sequence * block_queries;
  if (q0 >= last) return;
  const int count = static_cast<int>(min(last - q0, static_cast<std::int64_t>(block_queries)));
  const std::int64_t column = head * a.head_dim;
  const std::int64_t key_column = head / (a.heads / a.kv_heads) * a.head_dim;

  load_tile(query_tile, block_queries, tiles.query_stride, q, copy, q0, count, column, head_dim);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto token = [&](int query) {
    return a.query_rows != nullptr ? std::int64_t{a.query_rows[q0 + query]} : q0 + query;
  };
  std::int64_t t[warp_queries];  // queries beyond the last do the last one's work and store nothing
  float largest[warp_queries], total[warp_queries], sums[warp_queries][dims_a_lane];
  for (int i = 0; i < warp_queries; ++i) {
    t[i] = token(min(warp * warp_queries + i, count - 1));
    largest[i] = -INFINITY;
    total[i] = 0.0f;
    for (int d = 0; d < dims_a_lane; ++d) sums[i][d] = 0.0f;
  }

  const std::int64_t last_key = token(count - 1);
  // Tiles begin at the same keys whatever the window is.
  const std::int64_t first_key = a.window > 0 ? max(token(0) - a.window + 1, begin) : begin;
  for (std::int64_t k0 = begin + (first_key - begin) / tile_keys * tile_keys; k0 <= last_key;
       k0 += tile_keys) {
    __syncthreads();
    load_tile(key_tile, tile_keys, tiles.key_stride, k, copy, k0, end - k0, key_column, head_dim);
    load_tile(value_tile, tile_keys, tiles.value_stride, v, copy, k0, end - k0, key_column, head_dim);
    __syncthreads();

    float weight[warp_queries] = {};
    for (int d = 0; d < tiles.query_stride; d += 4) {
      const float4 key = *reinterpret_cast<const float4*>(key_tile + lane * tiles.key_stride + d);
#pragma unroll
      for (int i = 0; i < warp_queries; ++i) {
        const float4 query =
            *reinterpret_cast<const float4*>(query_tile + (warp * warp_queries + i) * tiles.query_stride + d);
        weight[i] = fmaf(query.x, key.x, weight[i]);
        weight[i] = fmaf(query.y, key.y, weight[i]);
        weight[i] = fmaf(query.z, key.z, weight[i]);
        weight[i] = fmaf(query.w, key.w, weight[i]);
      }
    }
    // Online softmax (Milakov and Gimelshein 2018). A tile that a query does not see leaves its bits alone.
#pragma unroll
    for (int i = 0; i < warp_queries; ++i) {
      const bool seen = k0 + lane <= t[i] && (a.window == 0 || k0 + lane > t[i] - a.window);
      float score = seen ? weight[i] * a.scale : -INFINITY;
      if (a.soft_cap != 0.0f && seen) score = soft_capped(score, a.soft_cap);
      const float now = fmaxf(largest[i], warp_max(score));
      const float less = now == -INFINITY ? 0.0f : now;  // the query has seen no key yet
      const float shrink = expf(largest[i] - less);
      weight[i] = seen ? expf(score - less) : 0.0f;
      total[i] = fmaf(total[i], shrink, warp_sum(weight[i]));
      largest[i] = now;
#pragma unroll
      for (int d = 0; d < dims_a_lane; ++d) sums[i][d] *= shrink;
    }
    for (int j = 0; j < tile_keys; ++j) {
      float w[warp_queries];
#pragma unroll
      for (int i = 0; i < warp_queries; ++i) w[i] = __shfl_sync(0xffffffffu, weight[i], j);
#pragma unroll
      for (int d = 0; d < dims_a_lane; ++d) {
        const float value = value_tile[j * tiles.value_stride + 32 * d + lane];
#pragma unroll
        for (int i = 0; i < warp_queries; ++i) sums[i][d] = fmaf(w[i], value, sums[i][d]);
      }
    }
  }

  for (int i = 0; i < warp_queries; ++i) {
    const int query = warp * warp_queries + i;
    if (query >= count) return;
    T* to = out.row(copy, q0 + query) + column;
#pragma unroll
    for (int d = 0; d < dims_a_lane; ++d) {
      if (32 * d + lane < head_dim) to[32 * d + lane] = from_float<T>(sums[i][d] / total[i]);
    }
  }
}

template <typename T, int dims_a_lane>
cudaError_t launch_attend(const Attention& a, std::int64_t copies, cudaStream_t stream) {
  const Tiles tiles(static_cast<int>(a.head_dim), dims_a_lane);
  const std::size_t bytes = static_cast<std::size_t>(tiles.floats()) * sizeof(float);
  const auto kernel = attend_tile<T, dims_a_lane>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status != cudaSuccess) return status;
  const std::int64_t tiles_a_sequence = (a.longest + block_queries - 1) / block_queries;
  const dim3 grid(blocks(a.sequences * tiles_a_sequence, 1), blocks(a.heads, 1), blocks(copies, 1));
  kernel<<<grid, warps * 32, bytes, stream>>>(a, tiles_a_sequence, typed<const T>(a.q), typed<const T>(a.k),
                                              typed<const T>(a.v), typed<T>(a.out));
  return cudaGetLastError();
}

}  // namespace

cudaError_t rotate(const Rotation& rotation, const std::int32_t* positions, std::int64_t tokens,
                   const std::int32_t* row_index, std::int64_t rows, std::int64_t copies, Matrices x,
                   std::uint32_t* fault, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const bool words = rotation.dims > 0 && rotation.dims % 16 == 0 && rotation.head_dim % 8 == 0 &&
                     rotation.heads > 0 && in_eights(x) && rotation.table_stride % 4 == 0 &&
                     in_eights(rotation.cosines) && in_eights(rotation.sines);
  return by_type(x.dtype, [&]<typename T>(T) {
    if (words) {
      const auto groups = static_cast<std::int32_t>((rotation.heads + heads_a_thread - 1) / heads_a_thread);
      const auto a_row = static_cast<std::int32_t>(rotation.dims / 16) * groups;
      const std::int32_t rows_a_block = std::max(256 / a_row, 1);
      rotate_words<T><<<dim3(blocks(rows, rows_a_block), blocks(copies, 1)), 256, 0, stream>>>(
          rotation, positions, tokens, row_index, rows, rows_a_block, groups, typed<T>(x), fault);
      return cudaGetLastError();
    }
    rotate_row<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), 128, 0, stream>>>(
        rotation, positions, tokens, row_index, typed<T>(x), fault);
    return cudaGetLastError();
  });
}

cudaError_t attend(const Attention& a, std::int64_t copies, cudaStream_t stream) {
  if (a.queries == 0) return cudaSuccess;
  if (a.head_dim > 256) return cudaErrorInvalidValue;
  return by_type(a.q.dtype, [&]<typename T>(T) {
    if (a.head_dim <= 64) return launch_attend<T, 2>(a, copies, stream);
    if (a.head_dim <= 128) return launch_attend<T, 4>(a, copies, stream);
    return launch_attend<T, 8>(a, copies, stream);
  });
}

}  // namespace mezzo::cuda
