#include "kernels/cuda/head.h"

#include <limits>

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/tile_product.cuh"

namespace mezzo::cuda {
namespace {

using namespace tiles;

static_assert(cluster_rows == head_tile_rows && tile_columns == head_tile_columns);

constexpr float log2_e = 1.44269504088896340736f;  // rounded: what divides by it divides by the same number

/// What the kernels are told of a Head.
struct Rows {
  std::uint32_t first, count, copy_rows;  // as in Head
  std::uint32_t vocabulary;
  std::uint32_t column_tiles;
};

/// The targets of one row.
struct Asked {
  std::int32_t begin = 0;
  std::int32_t end = 0;
  std::uint32_t copy = 0;
  std::int32_t target = 0;  // the first one
  std::int32_t token = 0;

  __device__ Asked(const Rows& rows, const Targets& targets, std::uint32_t row) {
    if (row >= rows.count) return;
    std::uint32_t read = rows.first + row;
    if (rows.copy_rows > 0) {
      copy = read / rows.copy_rows;
      read -= copy * rows.copy_rows;
    }
    begin = targets.row_begins[read];
    end = targets.row_begins[read + 1];
    fetch(targets);
  }
  __device__ void fetch(const Targets& targets) {
    if (begin == end) return;
    target = targets.row_targets[begin];
    token = targets.tokens[target];
  }
};

__device__ inline float largest_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float sum_of_four(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/// The logits of targets about row `half` of this thread to where they are answered.
template <int half>
__device__ inline void pick(const float (&logit)[128], Asked asked, const Targets& targets,
                            std::uint32_t column, const Typed<float>& out) {
  while (__any_sync(0xffffffffu, asked.begin < asked.end)) {
    const std::uint32_t mine = static_cast<std::uint32_t>(asked.token) - column - 2 * (threadIdx.x % 4);
    // Columns 8 j and 8 j + 1 from the thread's first on.
    const bool here = asked.begin < asked.end && mine < tile_columns && mine % 8 < 2;
    if (__any_sync(0xffffffffu, here)) {
      float value = 0.0f;
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        if (mine == 8 * j) value = logit[4 * j + 2 * half];
        if (mine == 8 * j + 1) value = logit[4 * j + 2 * half + 1];
      }
      if (here) out.row(asked.copy, 0)[asked.target] = value;
    }
    if (asked.begin < asked.end) {
      ++asked.begin;
      asked.fetch(targets);
    }
  }
}

/// Of the row `half` of this thread: the largest logit in powers of two, and the sum of exponentials less it.
template <int half>
__device__ inline float2 reduce(const float (&logit)[128]) {
  float largest = -INFINITY;  // fmaxf drops NaN, which the sum keeps
#pragma unroll
  for (int j = 0; j < 32; ++j)
    largest = fmaxf(largest, fmaxf(logit[4 * j + 2 * half], logit[4 * j + 2 * half + 1]));
  largest = largest_of_four(largest) * log2_e;
  const float less = largest == -INFINITY ? 0.0f : largest;  // -inf alone adds nothing
  float sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    sum[0] += power_of_two(fmaf(logit[4 * j + 2 * half], log2_e, -less));
    sum[1] += power_of_two(fmaf(logit[4 * j + 2 * half + 1], log2_e, -less));
  }
  return {largest, sum_of_four(sum[0] + sum[1])};
}

/// The end of a tile of logits.
struct SumTile {
  const Rows& rows;
  const Head& head;
  const Targets& targets;
  float2* sums;
  const Typed<float>& out;
  std::uint32_t row, column_tile;
  Asked asked[2];  // of `row` and of the eighth behind it

  __device__ void operator()(float (&logit)[128]) const {
    const std::uint32_t column = column_tile * tile_columns;
    const std::uint32_t first = column + 2 * (threadIdx.x % 4);
    if (head.bias != nullptr) {
#pragma unroll
      for (int j = 0; j < 64; ++j) {
        const std::uint32_t v = first + 8 * (j / 2) + j % 2;
        const float bias = v < rows.vocabulary ? element(head.bias, head.bias_dtype, v) : 0.0f;
        logit[4 * (j / 2) + j % 2] += bias;
        logit[4 * (j / 2) + j % 2 + 2] += bias;
      }
    }
    if (head.soft_cap != 0.0f) {
#pragma unroll
      for (int i = 0; i < 128; ++i) logit[i] = soft_capped(logit[i], head.soft_cap);
    }
    if (column + tile_columns > rows.vocabulary) {
#pragma unroll
      for (int j = 0; j < 64; ++j) {
        if (first + 8 * (j / 2) + j % 2 >= rows.vocabulary)
          logit[4 * (j / 2) + j % 2] = logit[4 * (j / 2) + j % 2 + 2] = -INFINITY;
      }
    }
    pick<0>(logit, asked[0], targets, column, out);
    pick<1>(logit, asked[1], targets, column, out);
    const float2 parts[2] = {reduce<0>(logit), reduce<1>(logit)};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t r = row + 8 * half;
      if (threadIdx.x % 4 == 0 && r < rows.count)
        sums[std::size_t{r} * rows.column_tiles + column_tile] = parts[half];
    }
  }
};

__global__ void __cluster_dims__(cluster_blocks) __launch_bounds__(threads, 1)
    sum_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
              TileGrid grid, Rows rows, Head head, Targets targets, float2* sums, Typed<float> out) {
  run_tiles(TileLoader{x, weight}, grid, [&](const Spot& spot) {
    return SumTile{
        rows, head,     targets,          sums,
        out,  spot.row, spot.column_tile, {{rows, targets, spot.row}, {rows, targets, spot.row + 8}}};
  });
}

// ---- answers

constexpr int answer_warps = 8;

__device__ inline double warp_sum_in_double(double x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// One warp a target and copy.
__global__ void __launch_bounds__(32 * answer_warps)
    score_targets(Rows all, Targets targets, std::uint32_t rows, const float2* sums, std::uint32_t first_copy,
                  std::uint32_t sharing, Typed<float> out, std::uint32_t* fault) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::int64_t j = std::int64_t{blockIdx.x} * answer_warps + threadIdx.x / 32;
  if (j >= targets.count) return;
  const std::int64_t read = targets.loss_rows[j];
  const std::int64_t token = targets.tokens[j];
  if (read < 0 || read >= rows || token < 0 || token >= all.vocabulary) return report(fault, Fault::target);
  const std::int64_t copy = first_copy + blockIdx.y;
  const std::int64_t row = copy * all.copy_rows + read - all.first;
  if (row < 0 || row >= all.count) return;
  const float2* const parts = sums + row * all.column_tiles;
  float largest = -INFINITY;
  for (std::uint32_t t = lane; t < all.column_tiles; t += 32) largest = fmaxf(largest, parts[t].x);
  largest = warp_max(largest);
  double sum = 0.0;
  for (std::uint32_t t = lane; t < all.column_tiles; t += 32) {
    const float2 part = parts[t];
    // A part of -inf alone adds nothing; NaN went into the sum and stays.
    if (part.x != -INFINITY || part.y != 0.0f)
      sum += static_cast<double>(part.y) * static_cast<double>(power_of_two(part.x - largest));
  }
  sum = warp_sum_in_double(sum);
  if (lane != 0) return;
  const double total = (static_cast<double>(largest) + log2(sum)) / static_cast<double>(log2_e);
  const auto answer = static_cast<float>(static_cast<double>(out.row(copy, 0)[j]) - total);
  for (std::uint32_t i = 0; i < sharing; ++i) out.row(copy + i, 0)[j] = answer;
}

// ---- launches

/// Whether the sizes are ones that the kernels can count.
bool fits(const Head& head) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  return head.in > 0 && head.vocabulary > 0 && head.vocabulary < most && head.first + head.count < most &&
         head.count * head_column_tiles(head.vocabulary) < most;
}

Rows rows_of(const Head& head) {
  return {.first = static_cast<std::uint32_t>(head.first),
          .count = static_cast<std::uint32_t>(head.count),
          .copy_rows = static_cast<std::uint32_t>(head.copy_rows),
          .vocabulary = static_cast<std::uint32_t>(head.vocabulary),
          .column_tiles = static_cast<std::uint32_t>(head_column_tiles(head.vocabulary))};
}

}  // namespace

cudaError_t sum_logits(const Head& head, const Targets& targets, float* sums, Matrices out,
                       cudaStream_t stream) {
  if (head.count == 0) return cudaSuccess;
  if (!fits(head)) return cudaErrorInvalidValue;
  const Rows rows = rows_of(head);
  const TileGrid grid = {.step = tile_columns,
                         .apart = tile_columns / cluster_blocks,
                         .row_tiles = blocks(head.count, cluster_rows),
                         .column_tiles = rows.column_tiles,
                         .stages = blocks(head.in, depth)};
  return launch_tiles(sum_tiles, {head.x, head.count, head.in, head.x_stride},
                      {head.weight, head.vocabulary, head.in, head.weight_stride}, grid, stream, rows, head,
                      targets, reinterpret_cast<float2*>(sums), typed<float>(out));
}

cudaError_t answer(const Head& head, const Targets& targets, const float* sums, std::int64_t copies,
                   Matrices out, std::uint32_t* fault, cudaStream_t stream) {
  if (targets.count == 0 || head.count == 0) return cudaSuccess;
  if (!fits(head)) return cudaErrorInvalidValue;
  std::int64_t first_copy = 0;  // the copies that these rows touch
  std::int64_t touched = 1;
  if (head.copy_rows > 0) {
    first_copy = head.first / head.copy_rows;
    touched = (head.first + head.count - 1) / head.copy_rows - first_copy + 1;
  }
  score_targets<<<dim3(blocks(targets.count, answer_warps), blocks(touched, 1)), 32 * answer_warps, 0,
                  stream>>>(rows_of(head), targets, static_cast<std::uint32_t>(head.rows),
                            reinterpret_cast<const float2*>(sums), static_cast<std::uint32_t>(first_copy),
                            head.copy_rows > 0 ? 1u : static_cast<std::uint32_t>(copies), typed<float>(out),
                            fault);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
