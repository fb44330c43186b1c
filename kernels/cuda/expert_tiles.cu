// The products of experts by tiles: a list of tiles through the experts, made by every block from where their
// rows begin.
#include <limits>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/gate_tile.cuh"
#include "kernels/cuda/routing.h"

namespace mezzo::cuda {
namespace {

using namespace tiles;

/// The rows of each expert, and the first of its tiles.
struct ExpertTable {
  std::uint32_t begin[most_experts + 1];
  std::uint32_t tile[most_experts + 1];
};

/// TileGrid through experts, each a matrix of W.
struct ExpertGrid {
  const ExpertTable& table;
  std::uint32_t experts;
  std::uint32_t step, apart, column_tiles, stages;

  __device__ std::uint32_t all() const { return table.tile[experts]; }
  __device__ Spot find(std::uint32_t tile) const {
    const auto first = static_cast<std::uint32_t>(range_at(table.tile, experts, tile));
    const std::uint32_t rows = table.begin[first + 1] - table.begin[first];
    const TileGrid grid = {step, apart, (rows + cluster_rows - 1) / cluster_rows, column_tiles, stages};
    Spot spot = grid.find(tile - table.tile[first]);
    spot.row += table.begin[first];
    spot.matrix = first;
    return spot;
  }
  __device__ void load_weight(void* to, const CUtensorMap& map, std::uint64_t& barrier, std::uint32_t column,
                              std::uint32_t row, const Spot& spot) const {
    load_for_both(to, map, barrier, column, row, spot.matrix);
  }
};

/// What the kernels are told of ExpertRows and of the columns.
struct Sizes {
  const std::int32_t* begins;
  std::uint32_t experts, first, count;
  std::uint32_t step, apart, column_tiles, stages;
};

/// All threads of a block.
__device__ inline void fill(ExpertTable& table, const Sizes& sizes) {
  const auto inside = [&](std::uint32_t e) {
    const std::int64_t row = std::int64_t{sizes.begins[e]} - sizes.first;
    return static_cast<std::uint32_t>(min(max(row, std::int64_t{0}), std::int64_t{sizes.count}));
  };
  for (std::uint32_t e = threadIdx.x; e <= sizes.experts; e += threads) table.begin[e] = inside(e);
  __syncthreads();
  if (threadIdx.x < 32) {
    std::uint32_t before = 0;
    for (std::uint32_t e0 = 0; e0 < sizes.experts; e0 += 32) {
      const std::uint32_t e = e0 + threadIdx.x;
      const std::uint32_t rows = e < sizes.experts ? table.begin[e + 1] - table.begin[e] : 0;
      std::uint32_t tiles = (rows + cluster_rows - 1) / cluster_rows * sizes.column_tiles;
      for (int up = 1; up < 32; up *= 2) {
        const std::uint32_t other = __shfl_up_sync(0xffffffffu, tiles, up);
        if (static_cast<int>(threadIdx.x) >= up) tiles += other;
      }
      if (e < sizes.experts) table.tile[e + 1] = before + tiles;
      before += __shfl_sync(0xffffffffu, tiles, 31);
    }
    if (threadIdx.x == 0) table.tile[0] = 0;
  }
  __syncthreads();
}

/// Rows of x wherever they are.
struct GatheredRows {
  const bf16* x;  ///< [period, in]
  std::int64_t stride;
  const std::int32_t* rows_at;  ///< of each place, less a multiple of `period`
  std::uint32_t period;
  std::uint32_t in;
};

/// Loads the rows of x that belong to a tile's places by all threads, 16 bytes each at a time, as the copy
/// engine would lay them out; W by the copy engine.
struct GatherLoader {
  const GatheredRows& from;
  const CUtensorMap& weight;
  const ExpertTable& table;

  static constexpr int arrivals = 1 + group_threads;
  static constexpr Registers registers = {40, 232};
  /// What threads have written to shared memory is read by the tensor cores.
  __device__ static void loaded() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

  /// 16 bytes to shared memory; zeros where not `there`.
  __device__ static void copy(void* to, const bf16* what, bool there) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(what), "r"(there ? 16 : 0)
                 : "memory");
  }
  /// Arrives at the barrier when what this thread has asked for is there.
  __device__ static void arrive_when_copied(std::uint64_t& barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&barrier))
                 : "memory");
  }

  template <typename Grid>
  __device__ void load_tiles(Shared& shared, const Grid& grid, std::uint32_t rank) const {
    // A thread has word `word` of every 16th row; words of 8 rows are turned by the row's number.
    constexpr int words = depth / 8;
    constexpr int down = group_threads / words;
    constexpr int turns = tile_rows / down;
    static_assert(words == 8 && down % 8 == 0);
    const std::uint32_t word = threadIdx.x % words;
    const std::uint32_t first = threadIdx.x / words;
    const std::uint32_t at = first * depth + (word ^ first % 8) * 8;
    tiles::Place place;
    for (std::uint32_t tile = blockIdx.x / cluster_blocks; tile < grid.all();
         tile += gridDim.x / cluster_blocks) {
      const Spot spot = grid.find(tile);
      const std::uint32_t end = table.begin[spot.matrix + 1];
      std::int32_t row[turns];
#pragma unroll
      for (int i = 0; i < turns; ++i) {
        const std::uint32_t of_place = spot.row + rank * tile_rows + first + i * down;
        row[i] = of_place < end ? from.rows_at[of_place] % static_cast<std::int32_t>(from.period) : -1;
      }
      for (std::uint32_t i = 0; i < grid.stages; ++i) {
        Stage& stage = shared.stage[place.stage];
        std::uint64_t& full = shared.full[place.stage];
        wait(shared.empty[place.stage], place.parity ^ 1);
        if (threadIdx.x == 0) {
          expect(full, sizeof(stage.weight));
          load_half(stage, weight, full, i, grid, spot, rank);
        }
        const std::uint32_t column = i * depth + word * 8;
#pragma unroll
        for (int n = 0; n < turns; ++n) {
          const bool there = row[n] >= 0 && column < from.in;
          copy(stage.x + at + n * down * depth, from.x + (there ? row[n] * from.stride + column : 0), there);
        }
        arrive_when_copied(full);
        place.advance();
      }
    }
  }
};

/// A tile as it is, in bf16 or fp32.
struct PlainOutput {
  bf16* y;
  float* wide;  // null: y
  std::int64_t stride;
  std::uint32_t cols;
};
struct PlainTile {
  const PlainOutput& out;
  std::uint32_t row, rows, column;

  __device__ void operator()(const float (&sum)[128]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t r = row + 8 * half;
      if (out.wide != nullptr) {
        const std::uint32_t first = column + 2 * (threadIdx.x % 4);
#pragma unroll
        for (int i = 0; i < 64; ++i) {
          const std::uint32_t c = first + 8 * (i / 2) + i % 2;
          if (r < rows && c < out.cols) out.wide[r * out.stride + c] = sum[4 * (i / 2) + 2 * half + i % 2];
        }
        continue;
      }
      const std::uint32_t lane_column = column + 8 * (threadIdx.x % 4);
#pragma unroll
      for (int j = 0; j < tile_columns / 8; j += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          words[i] = pack(sum[4 * (j + i) + 2 * half], sum[4 * (j + i) + 2 * half + 1]);
        const uint4 eight = transposed(words);
        if (r < rows && lane_column + 8 * j < out.cols)
          *reinterpret_cast<uint4*>(out.y + r * out.stride + lane_column + 8 * j) = eight;
      }
    }
  }
};

/// All threads of a block. `loader_of` makes the loader of the table that has been filled.
template <typename LoaderOf, typename EndOf>
__device__ inline void run_experts(const Sizes& sizes, const LoaderOf& loader_of, const EndOf& end_of) {
  __shared__ ExpertTable table;
  fill(table, sizes);
  const ExpertGrid grid = {table, sizes.experts, sizes.step, sizes.apart, sizes.column_tiles, sizes.stages};
  run_tiles(loader_of(table), grid,
            [&](const Spot& spot) { return end_of(spot, table.begin[spot.matrix + 1]); });
}

__global__ void __cluster_dims__(cluster_blocks) __launch_bounds__(threads, 1)
    expert_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                 Sizes sizes, PlainOutput out) {
  run_experts(
      sizes,
      [&](const ExpertTable&) {
        return TileLoader{x, weight};
      },
      [&](const Spot& spot, std::uint32_t rows) {
        return PlainTile{out, spot.row, rows, spot.column_tile * tile_columns};
      });
}

/// run_experts() that ends in gate times up.
template <typename LoaderOf>
__device__ inline void run_gated_experts(const Sizes& sizes, const Output& out, const LoaderOf& loader_of) {
  run_experts(sizes, loader_of, [&](const Spot& spot, std::uint32_t rows) {
    return GateTile{out, spot.row, rows, spot.column_tile * gate_columns};
  });
}

__global__ void __cluster_dims__(cluster_blocks) __launch_bounds__(threads, 1)
    gated_expert_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                       Sizes sizes, Output out) {
  run_gated_experts(sizes, out, [&](const ExpertTable&) { return TileLoader{x, weight}; });
}

__global__ void __cluster_dims__(cluster_blocks) __launch_bounds__(threads, 1)
    gathered_expert_tiles(GatheredRows x, const __grid_constant__ CUtensorMap weight, Sizes sizes,
                          Output out) {
  run_gated_experts(sizes, out, [&](const ExpertTable& table) { return GatherLoader{x, weight, table}; });
}

/// Launches a kernel(rows of x, map of weights, sizes, output), `cols` columns of y to a tile of `step`.
template <typename X, typename Out>
cudaError_t launch(void (*kernel)(X, CUtensorMap, Sizes, Out), const X& x, const ExpertRows& r,
                   const ExpertWeights& w, std::int64_t cols, std::int64_t step, std::int64_t apart,
                   const Out& out, cudaStream_t stream) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::int64_t column_tiles = (cols + step - 1) / step;
  const std::int64_t row_tiles = r.count / cluster_rows + r.experts;  // no more than that
  if (r.dtype != DType::bf16 || w.in <= 0 || r.experts > most_experts ||
      r.first + r.count >= most - cluster_rows || w.out >= most - tile_columns ||
      row_tiles * column_tiles >= most) {
    return cudaErrorInvalidValue;
  }
  CUtensorMap weight_map;
  const TileMatrix weights = {w.data, w.out, w.in, w.row_stride, r.experts, w.expert_stride};
  if (const cudaError_t status = map_of(weight_map, weights); status != cudaSuccess) return status;
  const Sizes sizes = {.begins = r.begins,
                       .experts = static_cast<std::uint32_t>(r.experts),
                       .first = static_cast<std::uint32_t>(r.first),
                       .count = static_cast<std::uint32_t>(r.count),
                       .step = static_cast<std::uint32_t>(step),
                       .apart = static_cast<std::uint32_t>(apart),
                       .column_tiles = static_cast<std::uint32_t>(column_tiles),
                       .stages = blocks(w.in, depth)};
  return launch_clusters(kernel, static_cast<std::uint32_t>(row_tiles * column_tiles), stream, x, weight_map,
                         sizes, out);
}

}  // namespace

cudaError_t multiply_expert_tiles(const ExpertRows& rows, const ExpertWeights& weights, Matrices y,
                                  cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  const bool wide = y.dtype == DType::f32;
  if (!wide && (y.dtype != DType::bf16 || weights.out % 8 != 0 || !in_eights(y)))
    return cudaErrorInvalidValue;
  CUtensorMap x;
  if (const cudaError_t status = map_of(x, {rows.x, rows.count, weights.in, rows.x_stride});
      status != cudaSuccess)
    return status;
  const PlainOutput out = {.y = wide ? nullptr : static_cast<bf16*>(y.data),
                           .wide = wide ? static_cast<float*>(y.data) : nullptr,
                           .stride = y.row_stride,
                           .cols = static_cast<std::uint32_t>(weights.out)};
  return launch(expert_tiles, x, rows, weights, weights.out, tile_columns, tile_columns / cluster_blocks, out,
                stream);
}

cudaError_t multiply_gated_experts(const ExpertRows& rows, const ExpertWeights& weights, Curve curve,
                                   Matrices y, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  const std::int64_t cols = weights.out / 2;
  if (y.dtype != DType::bf16 || cols % 8 != 0 || !in_eights(y)) return cudaErrorInvalidValue;
  const Output out = {.y = static_cast<bf16*>(y.data),
                      .stride = y.row_stride,
                      .cols = static_cast<std::uint32_t>(cols),
                      .curve = curve};
  if (rows.rows_at != nullptr) {
    if (rows.first != 0 || weights.in % 8 != 0 || rows.period <= 0 ||
        rows.period >= std::numeric_limits<std::int32_t>::max())
      return cudaErrorInvalidValue;
    const GatheredRows x = {.x = static_cast<const bf16*>(rows.x),
                            .stride = rows.x_stride,
                            .rows_at = rows.rows_at,
                            .period = static_cast<std::uint32_t>(rows.period),
                            .in = static_cast<std::uint32_t>(weights.in)};
    return launch(gathered_expert_tiles, x, rows, weights, cols, gate_columns, cols, out, stream);
  }
  CUtensorMap x;
  if (const cudaError_t status = map_of(x, {rows.x, rows.count, weights.in, rows.x_stride});
      status != cudaSuccess)
    return status;
  return launch(gated_expert_tiles, x, rows, weights, cols, gate_columns, cols, out, stream);
}

}  // namespace mezzo::cuda
