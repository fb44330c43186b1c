#pragma once
// Matrix products whose tiles end in code of one's own, for cards of compute capability 9.0: wgmma and the
// bulk copy engine (PTX ISA 8). To be included by sources that are compiled for sm_90a.
//
// A block has a tile of 128 rows of x and 256 of W at a time: one warpgroup loads x and W, two multiply 64
// rows each and then do what is to be done with the sums that they hold. Two blocks make a cluster: they have
// the same rows of W, of which each loads a half for both. The warpgroups meet nowhere: while one ends a tile
// the other has the tensor cores.
#include <cuda.h>
#include <cudaTypedefs.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/instructions.cuh"

namespace mezzo::cuda::tiles {

inline constexpr int group_rows = 64;  // of a warpgroup
inline constexpr int multipliers = 2;  // warpgroups
inline constexpr int tile_rows = multipliers * group_rows;
inline constexpr int tile_columns = 256;
inline constexpr int cluster_blocks = 2;
inline constexpr int cluster_rows = cluster_blocks * tile_rows;
inline constexpr int depth = 64;  // of a stage: rows of 128 bytes, what the copy engine's swizzle is made for
inline constexpr int stages = 4;
inline constexpr int band = 16;  // clusters' rows that share columns in the cache

inline constexpr int group_threads = 128;
inline constexpr int threads = (1 + multipliers) * group_threads;
/// Registers of a thread of the loading warpgroup and of the others, multiples of 8; 168 each before they are
/// shared out anew.
struct Registers {
  int loader, multiplier;
};
__host__ __device__ constexpr bool fit(Registers r) {
  return group_threads * (r.loader + multipliers * r.multiplier) <= 65536;
}

struct Stage {
  bf16 x[tile_rows * depth];
  bf16 weight[tile_columns * depth];
};
struct Shared {
  Stage stage[stages];
  std::uint64_t full[stages];   // phases end when a stage has been loaded
  std::uint64_t empty[stages];  // phases end when both blocks have multiplied it
};
inline constexpr int alignment = 1024;  // of what is swizzled
static_assert(sizeof(Stage) % alignment == 0);

// ---- single instructions

__device__ inline std::uint32_t rank_in_cluster() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// All threads of both blocks.
__device__ inline void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ inline void initialize(std::uint64_t& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals)
               : "memory");
}
/// Arrives, and has the phase end no sooner than `bytes` have been copied.
__device__ inline void expect(std::uint64_t& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(bytes)
               : "memory");
}
/// Arrives at the same barrier of block `rank` of the cluster.
__device__ inline void arrive(std::uint64_t& barrier, std::uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(&barrier)),
      "r"(rank)
      : "memory");
}
/// Waits for the end of a phase of this parity.
__device__ inline void wait(std::uint64_t& barrier, std::uint32_t parity) {
  std::uint32_t done;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
  } while (done == 0);
}

/// The box at (column, row) of a map to shared memory.
__device__ inline void load(void* to, const CUtensorMap& map, std::uint64_t& barrier, std::uint32_t column,
                            std::uint32_t row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&barrier)), "r"(column), "r"(row)
      : "memory");
}
/// The same, to the same place of both blocks, each of whose barriers counts it.
__device__ inline void load_for_both(void* to, const CUtensorMap& map, std::uint64_t& barrier,
                                     std::uint32_t column, std::uint32_t row) {
  constexpr std::uint16_t both = (1u << cluster_blocks) - 1;
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&barrier)), "r"(column), "r"(row), "h"(both)
      : "memory");
}

/// load_for_both() of the box at (column, row, matrix) of a map of several matrices.
__device__ inline void load_for_both(void* to, const CUtensorMap& map, std::uint64_t& barrier,
                                     std::uint32_t column, std::uint32_t row, std::uint32_t matrix) {
  constexpr std::uint16_t both = (1u << cluster_blocks) - 1;
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(&barrier)), "r"(column), "r"(row), "r"(matrix), "h"(both)
      : "memory");
}

/// The tensor core's description of rows of `depth` elements, swizzled, 8 of them in 1024 bytes.
__device__ inline std::uint64_t describe(const bf16* rows) {
  constexpr std::uint64_t swizzle_128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t eight_rows = std::uint64_t{1024 >> 4} << 32;
  return swizzle_128 | eight_rows | std::uint64_t{1} << 16 | (shared_address(rows) & 0x3ffffu) >> 4;
}

/// What follows uses registers that the tensor core writes.
__device__ inline void begin_multiplying() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
__device__ inline void wait_multiplied() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/// Registers that the tensor core has written: not to be read before this.
__device__ inline void hold(float (&d)[128]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define MEZZO_8(d, i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define MEZZO_32(d, i) MEZZO_8(d, i), MEZZO_8(d, i + 8), MEZZO_8(d, i + 16), MEZZO_8(d, i + 24)
/// d [64, 256] = x [64, 16] w [256, 16]^T, added to what d was where `add` is not 0. Lane 4 g + c of warp w
/// has rows 16 w + g and 16 w + g + 8: d[4 j], d[4 j + 1] are columns 8 j + 2 c and the next of the first,
/// d[4 j + 2], d[4 j + 3] of the second.
__device__ inline void multiply(float (&d)[128], std::uint64_t x, std::uint64_t w, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, p, 1, 1, 0, 0;\n}"
      : MEZZO_32(d, 0), MEZZO_32(d, 32), MEZZO_32(d, 64), MEZZO_32(d, 96)
      : "l"(x), "l"(w), "r"(add));
}
#undef MEZZO_32
#undef MEZZO_8

// ---- tiles

/// Where a tile lies: its first row of x, its columns, the matrix of W where there are several.
struct Spot {
  std::uint32_t row = 0;
  std::uint32_t column_tile = 0;
  std::uint32_t matrix = 0;
};

/// Sizes, and where the tiles of a cluster lie. A tile's 256 rows of W are two halves of 128: tile t has
/// those from t * step and from t * step + apart on.
struct TileGrid {
  std::uint32_t step, apart;              // rows of W
  std::uint32_t row_tiles, column_tiles;  // row tiles of a cluster
  std::uint32_t stages;                   // of a tile

  __host__ __device__ std::uint32_t all() const { return row_tiles * column_tiles; }
  /// Bands of rows one after another, columns within a band, the band's rows within those.
  __device__ Spot find(std::uint32_t tile) const {
    const std::uint32_t above = tile / (band * column_tiles) * band;
    const std::uint32_t inside = tile - above * column_tiles;
    const std::uint32_t height = min(row_tiles - above, std::uint32_t{band});
    return {.row = (above + inside % height) * cluster_rows, .column_tile = inside / height, .matrix = 0};
  }
  __device__ void load_weight(void* to, const CUtensorMap& map, std::uint64_t& barrier, std::uint32_t column,
                              std::uint32_t row, const Spot&) const {
    load_for_both(to, map, barrier, column, row);
  }
};

/// A place in the ring of stages.
struct Place {
  std::uint32_t stage = 0;
  std::uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// The block's half of stage i's rows of W, for both blocks.
template <typename Grid>
__device__ inline void load_half(Stage& stage, const CUtensorMap& weight, std::uint64_t& full,
                                 std::uint32_t i, const Grid& grid, const Spot& spot, std::uint32_t rank) {
  constexpr int half = tile_columns / cluster_blocks;
  grid.load_weight(stage.weight + rank * half * depth, weight, full, i * depth,
                   spot.column_tile * grid.step + rank * grid.apart, spot);
}

/// Loads x and W by the copy engine: one thread asks for both.
struct TileLoader {
  const CUtensorMap& x;
  const CUtensorMap& weight;

  static constexpr int arrivals = 1;  // at a stage's `full`
  static constexpr Registers registers = {24, 240};
  /// Before a stage that has been loaded is multiplied.
  __device__ static void loaded() {}

  template <typename Grid>
  __device__ void load_tiles(Shared& shared, const Grid& grid, std::uint32_t rank) const {
    if (threadIdx.x != 0) return;
    Place place;
    for (std::uint32_t tile = blockIdx.x / cluster_blocks; tile < grid.all();
         tile += gridDim.x / cluster_blocks) {
      const Spot spot = grid.find(tile);
      const std::uint32_t row = spot.row + rank * tile_rows;
      for (std::uint32_t i = 0; i < grid.stages; ++i) {
        Stage& stage = shared.stage[place.stage];
        std::uint64_t& full = shared.full[place.stage];
        wait(shared.empty[place.stage], place.parity ^ 1);
        expect(full, sizeof(Stage));
        load(stage.x, x, full, i * depth, row);
        load_half(stage, weight, full, i, grid, spot, rank);
        place.advance();
      }
    }
  }
};

/// `ends` is asked for a tile's end before the products, so that it can fetch what it needs, and called with
/// the sums behind them: auto end = ends(spot), end(sum), where spot.row is that of sum[0] (multiply() says
/// which the others are).
template <typename Loader, typename Grid, typename Ends>
__device__ inline void multiply_tiles(Shared& shared, const Grid& grid, const Ends& ends,
                                      std::uint32_t rank) {
  const std::uint32_t group = threadIdx.x / group_threads - 1;
  const std::uint32_t thread = threadIdx.x % group_threads;
  const auto release = [&](std::uint32_t stage) {
    if (thread < cluster_blocks) arrive(shared.empty[stage], thread);
  };
  Place place;
  for (std::uint32_t tile = blockIdx.x / cluster_blocks; tile < grid.all();
       tile += gridDim.x / cluster_blocks) {
    Spot spot = grid.find(tile);
    spot.row += rank * tile_rows + group * group_rows + thread / 32 * 16 + thread % 32 / 4;
    const auto end = ends(spot);
    float sum[128];
    std::uint32_t last = 0;
    for (std::uint32_t i = 0; i < grid.stages; ++i) {
      const Stage& stage = shared.stage[place.stage];
      wait(shared.full[place.stage], place.parity);
      Loader::loaded();
      const std::uint64_t x = describe(stage.x + group * group_rows * depth);
      const std::uint64_t w = describe(stage.weight);
      begin_multiplying();
#pragma unroll
      for (int k = 0; k < depth / 16; ++k) {  // 32 bytes further each
        multiply(sum, x + 2 * k, w + 2 * k, static_cast<int>(i) + k);
      }
      commit();
      if (i > 0) {
        wait_multiplied<1>();
        release(last);
      }
      last = place.stage;
      place.advance();
    }
    wait_multiplied<0>();
    hold(sum);
    release(last);
    end(sum);
  }
}

/// The whole of a kernel of clusters, launched by launch_clusters().
template <typename Loader, typename Grid, typename Ends>
__device__ inline void run_tiles(const Loader& loader, const Grid& grid, const Ends& ends) {
  static_assert(fit(Loader::registers));
  extern __shared__ __align__(alignment) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const std::uint32_t rank = rank_in_cluster();
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      initialize(shared.full[i], Loader::arrivals);
      initialize(shared.empty[i], cluster_blocks * multipliers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_barrier();
  if (threadIdx.x < group_threads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Loader::registers.loader));
    loader.load_tiles(shared, grid, rank);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Loader::registers.multiplier));
    multiply_tiles<Loader>(shared, grid, ends, rank);
  }
  cluster_barrier();  // a block's memory and barriers stay until the other one is done with them
}

// ---- launches

/// bf16 [rows, columns] in device memory; every row begins on a multiple of 16 bytes. Or several of them,
/// each `matrix_stride` elements behind the last.
struct TileMatrix {
  const void* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;
  std::int64_t matrices = 0;  ///< 0: one, whose map has two dimensions
  std::int64_t matrix_stride = 0;
};

/// Boxes of 128 rows and one stage's columns; 0 beyond the matrix.
inline cudaError_t map_of(CUtensorMap& map, const TileMatrix& m) {
  static_assert(tile_rows == tile_columns / cluster_blocks);
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  if (const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                                  cudaEnableDefault, &result);
      status != cudaSuccess) {
    return status;
  }
  if (result != cudaDriverEntryPointSuccess) return cudaErrorSymbolNotFound;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows),
                               static_cast<cuuint64_t>(m.matrices)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(m.stride) * sizeof(bf16),
                                 static_cast<cuuint64_t>(m.matrix_stride) * sizeof(bf16)};
  const cuuint32_t box[3] = {depth, tile_rows, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult made = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found)(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, m.matrices > 0 ? 3 : 2, const_cast<void*>(m.data), sizes,
      strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return made == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/// Launches a kernel that calls run_tiles() on as many clusters as the card has room for, at most `most`.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_clusters(void (*kernel)(Parameters...), std::uint32_t most, cudaStream_t stream,
                            const Arguments&... arguments) {
  int device = 0;
  int processors = 0;
  if (const cudaError_t status = cudaGetDevice(&device); status != cudaSuccess) return status;
  if (const cudaError_t status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
      status != cudaSuccess) {
    return status;
  }
  if (const cudaError_t status =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
      status != cudaSuccess) {
    return status;
  }
  const auto room = static_cast<std::uint32_t>(std::max(processors / cluster_blocks, 1));
  kernel<<<std::min(most, room) * cluster_blocks, threads, sizeof(Shared), stream>>>(arguments...);
  return cudaGetLastError();
}

/// Launches a kernel(map of x, map of weight, grid, arguments...) over a grid that the host knows.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_tiles(void (*kernel)(CUtensorMap, CUtensorMap, TileGrid, Parameters...),
                         const TileMatrix& x, const TileMatrix& weight, const TileGrid& grid,
                         cudaStream_t stream, const Arguments&... arguments) {
  CUtensorMap x_map, weight_map;
  if (const cudaError_t status = map_of(x_map, x); status != cudaSuccess) return status;
  if (const cudaError_t status = map_of(weight_map, weight); status != cudaSuccess) return status;
  return launch_clusters(kernel, grid.all(), stream, x_map, weight_map, grid, arguments...);
}

}  // namespace mezzo::cuda::tiles
