#include "kernels/cuda/head.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include <limits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/instructions.cuh"

// A block has a tile of 128 rows and 256 columns of logits at a time: one warpgroup loads x and W, two
// multiply 64 rows each and then reduce the logits that they hold. Two blocks make a cluster: they have the
// same columns, of whose weights each loads a half for both. The warpgroups meet nowhere: while one takes
// exponentials the other has the tensor cores.

namespace mezzo::cuda {
namespace {

constexpr int group_rows = 64;  // of a warpgroup
constexpr int multipliers = 2;  // warpgroups
constexpr int tile_rows = multipliers * group_rows;
constexpr int tile_columns = head_tile_columns;
constexpr int cluster_blocks = 2;
constexpr int cluster_rows = cluster_blocks * tile_rows;
static_assert(cluster_rows == head_tile_rows);
constexpr int depth = 64;  // of a stage: rows of 128 bytes, what the copy engine's swizzle is made for
constexpr int stages = 4;
constexpr int band = 16;  // clusters' rows that share columns in the cache

constexpr int group_threads = 128;
constexpr int threads = (1 + multipliers) * group_threads;
// Registers of a thread, multiples of 8; 168 each before they are shared out anew.
constexpr int loader_registers = 24;
constexpr int multiplier_registers = 240;
static_assert(group_threads * (loader_registers + multipliers * multiplier_registers) <= 65536);

struct Stage {
  bf16 x[tile_rows * depth];
  bf16 weight[tile_columns * depth];
};
struct Shared {
  Stage stage[stages];
  std::uint64_t full[stages];   // phases end when a stage has been loaded
  std::uint64_t empty[stages];  // phases end when both blocks have multiplied it
};
constexpr int alignment = 1024;  // of what is swizzled
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

constexpr float log2_e = 1.44269504088896340736f;  // rounded: what divides by it divides by the same number

/// Sizes, and where the tiles of a cluster lie.
struct Tiles {
  std::uint32_t first, count, copy_rows;  // as in Head
  std::uint32_t vocabulary;
  std::uint32_t row_tiles, column_tiles;  // row tiles of a cluster
  std::uint32_t stages;                   // of a tile

  __host__ __device__ std::uint32_t all() const { return row_tiles * column_tiles; }
  /// Bands of rows one after another, columns within a band, the band's rows within those.
  __device__ void find(std::uint32_t tile, std::uint32_t& row, std::uint32_t& column) const {
    const std::uint32_t above = tile / (band * column_tiles) * band;
    const std::uint32_t inside = tile - above * column_tiles;
    const std::uint32_t height = min(row_tiles - above, std::uint32_t{band});
    row = (above + inside % height) * cluster_rows;
    column = inside / height * tile_columns;
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

/// The questions of one row.
struct Asked {
  std::int32_t begin = 0;
  std::int32_t end = 0;
  std::uint32_t copy = 0;
  std::int32_t question = 0;  // the first one
  std::int32_t token = 0;

  __device__ Asked(const Tiles& tiles, const Questions& questions, std::uint32_t row) {
    if (row >= tiles.count) return;
    std::uint32_t read = tiles.first + row;
    if (tiles.copy_rows > 0) {
      copy = read / tiles.copy_rows;
      read -= copy * tiles.copy_rows;
    }
    begin = questions.row_begins[read];
    end = questions.row_begins[read + 1];
    fetch(questions);
  }
  __device__ void fetch(const Questions& questions) {
    if (begin == end) return;
    question = questions.row_questions[begin];
    token = questions.tokens[question];
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

/// The logits of questions about row `half` of this thread to where they are answered.
template <int half>
__device__ inline void pick(const float (&logit)[128], Asked asked, const Questions& questions,
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
      if (here) out.row(asked.copy, 0)[asked.question] = value;
    }
    if (asked.begin < asked.end) {
      ++asked.begin;
      asked.fetch(questions);
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

__device__ inline void load_tiles(Shared& shared, const CUtensorMap& x, const CUtensorMap& weight,
                                  const Tiles& tiles, std::uint32_t rank) {
  Place place;
  for (std::uint32_t tile = blockIdx.x / cluster_blocks; tile < tiles.all();
       tile += gridDim.x / cluster_blocks) {
    std::uint32_t row, column;
    tiles.find(tile, row, column);
    row += rank * tile_rows;
    for (std::uint32_t i = 0; i < tiles.stages; ++i) {
      constexpr int half = tile_columns / cluster_blocks;
      Stage& stage = shared.stage[place.stage];
      std::uint64_t& full = shared.full[place.stage];
      wait(shared.empty[place.stage], place.parity ^ 1);
      expect(full, sizeof(Stage));
      load(stage.x, x, full, i * depth, row);
      load_for_both(stage.weight + rank * half * depth, weight, full, i * depth, column + rank * half);
      place.advance();
    }
  }
}

__device__ inline void multiply_tiles(Shared& shared, const Tiles& tiles, const Head& head,
                                      const Questions& questions, float2* sums, const Typed<float>& out,
                                      std::uint32_t rank) {
  const std::uint32_t group = threadIdx.x / group_threads - 1;
  const std::uint32_t thread = threadIdx.x % group_threads;
  const auto release = [&](std::uint32_t stage) {
    if (thread < cluster_blocks) arrive(shared.empty[stage], thread);
  };
  Place place;
  for (std::uint32_t tile = blockIdx.x / cluster_blocks; tile < tiles.all();
       tile += gridDim.x / cluster_blocks) {
    std::uint32_t row, column;
    tiles.find(tile, row, column);
    row += rank * tile_rows + group * group_rows + thread / 32 * 16 + thread % 32 / 4;
    const Asked asked[2] = {{tiles, questions, row}, {tiles, questions, row + 8}};
    float logit[128];
    std::uint32_t last = 0;
    for (std::uint32_t i = 0; i < tiles.stages; ++i) {
      const Stage& stage = shared.stage[place.stage];
      wait(shared.full[place.stage], place.parity);
      const std::uint64_t x = describe(stage.x + group * group_rows * depth);
      const std::uint64_t w = describe(stage.weight);
      begin_multiplying();
#pragma unroll
      for (int k = 0; k < depth / 16; ++k) {  // 32 bytes further each
        multiply(logit, x + 2 * k, w + 2 * k, static_cast<int>(i) + k);
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
    hold(logit);
    release(last);

    if (head.bias != nullptr) {
#pragma unroll
      for (int j = 0; j < 64; ++j) {
        const std::uint32_t v = column + 8 * (j / 2) + 2 * (thread % 4) + j % 2;
        const float bias = v < tiles.vocabulary ? element(head.bias, head.bias_dtype, v) : 0.0f;
        logit[4 * (j / 2) + j % 2] += bias;
        logit[4 * (j / 2) + j % 2 + 2] += bias;
      }
    }
    if (column + tile_columns > tiles.vocabulary) {
#pragma unroll
      for (int j = 0; j < 64; ++j) {
        if (column + 8 * (j / 2) + 2 * (thread % 4) + j % 2 >= tiles.vocabulary)
          logit[4 * (j / 2) + j % 2] = logit[4 * (j / 2) + j % 2 + 2] = -INFINITY;
      }
    }
    pick<0>(logit, asked[0], questions, column, out);
    pick<1>(logit, asked[1], questions, column, out);
    const float2 parts[2] = {reduce<0>(logit), reduce<1>(logit)};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t r = row + 8 * half;
      if (thread % 4 == 0 && r < tiles.count)
        sums[std::size_t{r} * tiles.column_tiles + column / tile_columns] = parts[half];
    }
  }
}

__global__ void __cluster_dims__(cluster_blocks) __launch_bounds__(threads, 1)
    sum_tiles(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight, Tiles tiles,
              Head head, Questions questions, float2* sums, Typed<float> out) {
  extern __shared__ __align__(alignment) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const std::uint32_t rank = rank_in_cluster();
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      initialize(shared.full[i], 1);
      initialize(shared.empty[i], cluster_blocks * multipliers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_barrier();
  if (threadIdx.x < group_threads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(loader_registers));
    if (threadIdx.x == 0) load_tiles(shared, x, weight, tiles, rank);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(multiplier_registers));
    multiply_tiles(shared, tiles, head, questions, sums, out, rank);
  }
  cluster_barrier();  // a block's memory and barriers stay until the other one is done with them
}

// ---- answers

constexpr int answer_warps = 8;

__device__ inline double warp_sum_in_double(double x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// One warp a question and copy.
__global__ void __launch_bounds__(32 * answer_warps)
    answer_questions(Tiles tiles, Questions questions, std::uint32_t rows, const float2* sums,
                     std::uint32_t first_copy, std::uint32_t sharing, Typed<float> out,
                     std::uint32_t* fault) {
  const std::uint32_t lane = threadIdx.x % 32;
  const std::int64_t j = std::int64_t{blockIdx.x} * answer_warps + threadIdx.x / 32;
  if (j >= questions.count) return;
  const std::int64_t read = questions.reads[j];
  const std::int64_t token = questions.tokens[j];
  if (read < 0 || read >= rows || token < 0 || token >= tiles.vocabulary)
    return report(fault, Fault::question);
  const std::int64_t copy = first_copy + blockIdx.y;
  const std::int64_t row = copy * tiles.copy_rows + read - tiles.first;
  if (row < 0 || row >= tiles.count) return;
  const float2* const parts = sums + row * tiles.column_tiles;
  float largest = -INFINITY;
  for (std::uint32_t t = lane; t < tiles.column_tiles; t += 32) largest = fmaxf(largest, parts[t].x);
  largest = warp_max(largest);
  double sum = 0.0;
  for (std::uint32_t t = lane; t < tiles.column_tiles; t += 32) {
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

/// Boxes of 128 rows and one stage's columns; 0 beyond the matrix.
cudaError_t map_of(CUtensorMap& map, const void* data, std::int64_t rows, std::int64_t columns,
                   std::int64_t stride) {
  static_assert(tile_rows == tile_columns / cluster_blocks);
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  if (const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                                  cudaEnableDefault, &result);
      status != cudaSuccess) {
    return status;
  }
  if (result != cudaDriverEntryPointSuccess) return cudaErrorSymbolNotFound;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * sizeof(bf16)};
  const cuuint32_t box[2] = {depth, tile_rows};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult made = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found)(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return made == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/// Whether the sizes are ones that the kernels can count.
bool fits(const Head& head) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  return head.in > 0 && head.vocabulary > 0 && head.vocabulary < most && head.first + head.count < most &&
         head.count * head_column_tiles(head.vocabulary) < most;
}

Tiles tiles_of(const Head& head) {
  return {.first = static_cast<std::uint32_t>(head.first),
          .count = static_cast<std::uint32_t>(head.count),
          .copy_rows = static_cast<std::uint32_t>(head.copy_rows),
          .vocabulary = static_cast<std::uint32_t>(head.vocabulary),
          .row_tiles = blocks(head.count, cluster_rows),
          .column_tiles = static_cast<std::uint32_t>(head_column_tiles(head.vocabulary)),
          .stages = blocks(head.in, depth)};
}

}  // namespace

bool head_runs_on(int major, int minor) { return major == 9 && minor == 0; }

cudaError_t sum_logits(const Head& head, const Questions& questions, float* sums, Matrices out,
                       cudaStream_t stream) {
  if (head.count == 0) return cudaSuccess;
  if (!fits(head)) return cudaErrorInvalidValue;
  CUtensorMap x, weight;
  if (const cudaError_t status = map_of(x, head.x, head.count, head.in, head.x_stride); status != cudaSuccess)
    return status;
  if (const cudaError_t status = map_of(weight, head.weight, head.vocabulary, head.in, head.weight_stride);
      status != cudaSuccess) {
    return status;
  }
  int device = 0;
  int processors = 0;
  if (const cudaError_t status = cudaGetDevice(&device); status != cudaSuccess) return status;
  if (const cudaError_t status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
      status != cudaSuccess) {
    return status;
  }
  if (const cudaError_t status =
          cudaFuncSetAttribute(sum_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
      status != cudaSuccess) {
    return status;
  }
  const Tiles tiles = tiles_of(head);
  const std::uint32_t clusters =
      std::min(tiles.all(), static_cast<std::uint32_t>(std::max(processors / cluster_blocks, 1)));
  sum_tiles<<<clusters * cluster_blocks, threads, sizeof(Shared), stream>>>(
      x, weight, tiles, head, questions, reinterpret_cast<float2*>(sums), typed<float>(out));
  return cudaGetLastError();
}

cudaError_t answer(const Head& head, const Questions& questions, const float* sums, std::int64_t copies,
                   Matrices out, std::uint32_t* fault, cudaStream_t stream) {
  if (questions.count == 0 || head.count == 0) return cudaSuccess;
  if (!fits(head)) return cudaErrorInvalidValue;
  std::int64_t first_copy = 0;  // the copies that these rows touch
  std::int64_t touched = 1;
  if (head.copy_rows > 0) {
    first_copy = head.first / head.copy_rows;
    touched = (head.first + head.count - 1) / head.copy_rows - first_copy + 1;
  }
  answer_questions<<<dim3(blocks(questions.count, answer_warps), blocks(touched, 1)), 32 * answer_warps, 0,
                     stream>>>(tiles_of(head), questions, static_cast<std::uint32_t>(head.rows),
                               reinterpret_cast<const float2*>(sums), static_cast<std::uint32_t>(first_copy),
                               head.copy_rows > 0 ? 1u : static_cast<std::uint32_t>(copies),
                               typed<float>(out), fault);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
