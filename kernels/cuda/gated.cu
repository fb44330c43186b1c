#include "kernels/cuda/gated.h"

#include <limits>

#include "kernels/cuda/gate_tile.cuh"

namespace mezzo::cuda {
namespace {

using namespace tiles;

__global__ void __cluster_dims__(cluster_blocks) __launch_bounds__(threads, 1)
    gate_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
               TileGrid grid, Output out, std::uint32_t rows) {
  run_tiles(TileLoader{x, weight}, grid, [&](const Spot& spot) {
    return GateTile{out, spot.row, rows, spot.column_tile * gate_columns};
  });
}

}  // namespace

cudaError_t multiply_gated(const GatedProduct& o, cudaStream_t stream) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (o.rows == 0 || o.cols == 0) return cudaSuccess;
  const std::int64_t column_tiles = (o.cols + gate_columns - 1) / gate_columns;
  const std::int64_t row_tiles = (o.rows + cluster_rows - 1) / cluster_rows;
  if (o.in <= 0 || o.cols % 8 != 0 || o.y_stride % 8 != 0 || o.rows >= most - cluster_rows ||
      2 * o.cols >= most - tile_columns || row_tiles * column_tiles >= most) {
    return cudaErrorInvalidValue;
  }
  const TileGrid grid = {.step = gate_columns,
                         .apart = static_cast<std::uint32_t>(o.cols),
                         .row_tiles = static_cast<std::uint32_t>(row_tiles),
                         .column_tiles = static_cast<std::uint32_t>(column_tiles),
                         .stages = blocks(o.in, depth)};
  const Output out = {.y = static_cast<bf16*>(o.y),
                      .stride = o.y_stride,
                      .cols = static_cast<std::uint32_t>(o.cols),
                      .curve = o.curve};
  return launch_tiles(gate_tiles, {o.x, o.rows, o.in, o.x_stride},
                      {o.weight, 2 * o.cols, o.in, o.weight_stride}, grid, stream, out,
                      static_cast<std::uint32_t>(o.rows));
}

}  // namespace mezzo::cuda
