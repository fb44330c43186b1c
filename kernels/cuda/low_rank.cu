#include "kernels/cuda/low_rank.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/instructions.cuh"
#include "mezzo/core/noise.h"

namespace mezzo::cuda {
namespace {

/// The tail that owns `rank`, or -1 for a rank of the padding.
__device__ inline int tail_of(const LowRanks& tails, std::int64_t rank) {
  for (int i = 0; i < tails.count; ++i) {
    if (rank >= tails.tail[i].rank_begin && rank < tails.tail[i].rank_begin + tails.tail[i].rank) return i;
  }
  return -1;
}

/// factors [2 + direction_blocks][padded][in]: high(A), low(A), Z_A of each direction block. A thread makes
/// four columns.
__global__ void __launch_bounds__(128)
    write_factors(LowRanks tails, std::int64_t in, NoiseKind noise, const Perturbation* perturbations,
                  const std::int32_t* first_probe, bf16* factors) {
  const std::int64_t j = 4 * (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x);
  if (j >= in) return;
  const std::int64_t rank = blockIdx.y;
  const std::int64_t padded = gridDim.y;
  const int owner = tail_of(tails, rank);
  float value[4] = {};
  float rest[4] = {};
  const bool base = blockIdx.z == 0;
  if (owner >= 0) {
    const LowRank& tail = tails.tail[owner];
    const std::int64_t element = (rank - tail.rank_begin) * in + j;
    if (base) {
      for (int i = 0; i < 4; ++i) {
        const float a = tail.a != nullptr ? tail.a[element + i] : 0.0f;
        value[i] = a;
        rest[i] = a - __bfloat162float(__float2bfloat16_rn(a));
      }
    } else {
      const Perturbation p = perturbations[first_probe[blockIdx.z - 1]];
      const NoiseQuad z = noise4(noise, p.seed, tail.a_noise, static_cast<std::uint64_t>(element / 4));
      for (int i = 0; i < 4; ++i) value[i] = z.value[i];
    }
  }
  const auto store = [&](std::int64_t plane, const float* four) {
    *reinterpret_cast<uint2*>(factors + (plane * padded + rank) * in + j) =
        make_uint2(pack(four[0], four[1]), pack(four[2], four[3]));
  };
  if (base) {
    store(0, value);
    store(1, rest);
  } else {
    store(1 + blockIdx.z, value);
  }
}

/// A thread writes 8 columns of one row of W's tail: of the two Bs (block z 0) or of one direction block.
__global__ void __launch_bounds__(128)
    write_tails(bf16* weight, std::int64_t row_stride, std::int64_t rows, LowRanks tails, TailColumns columns,
                NoiseKind noise, const Perturbation* perturbations, const std::int32_t* first_probe,
                std::int64_t direction_blocks) {
  const std::int64_t vectors = columns.width() / 8;
  const std::int64_t place = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t row = place / vectors;
  const std::int64_t column = place % vectors * 8;
  if (row >= rows) return;
  float value[8] = {};
  int owner = -1;
  for (int i = 0; i < tails.count; ++i) {
    if (row >= tails.tail[i].row_begin && row < tails.tail[i].row_begin + tails.tail[i].rows) owner = i;
  }
  const std::int64_t direction_block = (column - columns.base) / columns.block;
  if (owner >= 0 && (column < columns.base || direction_block < direction_blocks)) {
    const LowRank& tail = tails.tail[owner];
    const std::int64_t first = (row - tail.row_begin) * tail.rank;  // of this row's elements of B
    if (column < columns.base) {
      for (int i = 0; i < 8; ++i) {
        const std::int64_t k = column + i < columns.ranks ? column + i : column + i - columns.ranks;
        const std::int64_t rank = k - tail.rank_begin;
        if (k < columns.ranks && rank >= 0 && rank < tail.rank && tail.b != nullptr)
          value[i] = tail.b[first + rank];
      }
    } else {
      const std::uint64_t seed = perturbations[first_probe[direction_block]].seed;
      const std::int64_t rank0 = column - columns.base - direction_block * columns.block - tail.rank_begin;
      std::int64_t quad = -1;
      NoiseQuad z = {};
      for (int i = 0; i < 8; ++i) {
        const std::int64_t rank = rank0 + i;
        if (rank < 0 || rank >= tail.rank) continue;
        if ((first + rank) / 4 != quad) {
          quad = (first + rank) / 4;
          z = noise4(noise, seed, tail.b_noise, static_cast<std::uint64_t>(quad));
        }
        const std::int64_t lane = (first + rank) % 4;
        value[i] = lane == 0 ? z.value[0] : lane == 1 ? z.value[1] : lane == 2 ? z.value[2] : z.value[3];
      }
    }
  }
  *reinterpret_cast<uint4*>(weight + row * row_stride + column) = make_uint4(
      pack(value[0], value[1]), pack(value[2], value[3]), pack(value[4], value[5]), pack(value[6], value[7]));
}

// ---- s: a block makes 32 rows of one copy by `pass` ranks at a time. Of its four warps two share 16 rows,
// one takes the first half of each stage's columns, the other the second; the two sums are added at the end.
// x and the factors come through shared memory, 16-byte words xor-ed with the row's number so that ldmatrix
// meets no bank twice.
constexpr int warps = 4;
constexpr int tile_rows = 32;
constexpr int tile_cols = 128;
constexpr int stages = 4;
constexpr int words = tile_cols / 8;

template <int pass>
struct Stage {
  bf16 x[tile_rows][tile_cols];
  bf16 factor[3 * pass][tile_cols];  // high(A), low(A), Z_A
};

/// Where word `word` of a stage's row lies.
__device__ inline int place_of(int row, int word) { return (word ^ (row % 8)) * 8; }

/// 16 bytes from global to shared memory; zeros where not `valid`.
__device__ inline void copy_word(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(bytes)
               : "memory");
}

/// Where s goes: into the columns behind x, or, where `s` is not null, as it is.
struct Projected {
  TailColumns columns;
  std::int64_t blocks_a_range = 1;
  float* s = nullptr;  // [copies][rows][ranks], without the scaling
};

template <int pass>
__global__ void __launch_bounds__(warps * 32)
    project_tile(Typed<bf16> x, std::int64_t rows, std::int64_t in, LowRanks tails, Projected to,
                 const Perturbation* perturbations, const std::int32_t* direction_block, const bf16* factors,
                 std::int64_t padded) {
  extern __shared__ uint4 shared[];
  Stage<pass>* const stage = reinterpret_cast<Stage<pass>*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first_of_warp = 16 * (warp % 2);
  const bool second_half = warp >= 2;
  const std::int64_t first_row = std::int64_t{blockIdx.x} * tile_rows;
  const std::int64_t copy = blockIdx.y;
  const float epsilon = perturbations[copy].epsilon;
  const std::int64_t my_block = direction_block[copy];
  const TailColumns& columns = to.columns;
  const std::int64_t own_block = columns.base + my_block % to.blocks_a_range * columns.block;

  // The rows' tails: zeros first, then, behind a barrier, what belongs there.
  const std::int64_t vectors = columns.width() / 8;
  for (std::int64_t e = threadIdx.x; to.s == nullptr && e < tile_rows * vectors; e += warps * 32) {
    const std::int64_t row = first_row + e / vectors;
    if (row < rows)
      *reinterpret_cast<uint4*>(x.row(copy, row) + in + e % vectors * 8) = make_uint4(0, 0, 0, 0);
  }

  // A thread brings word `word` of every eighth row.
  constexpr int down = warps * 32 / words;
  const int word = static_cast<int>(threadIdx.x) % words;
  const int top = static_cast<int>(threadIdx.x) / words;
  const bf16* x_from[tile_rows / down];
  bool x_valid[tile_rows / down];
  for (int i = 0; i < tile_rows / down; ++i) {
    const std::int64_t row = first_row + top + i * down;
    x_valid[i] = row < rows;
    x_from[i] = x.row(copy, x_valid[i] ? row : 0) + 8 * word;
  }
  const auto load = [&](int which, int column, std::int64_t rank0) {
    Stage<pass>& s = stage[which];
    const bool inside = column + 8 * word < in;
    const int from = inside ? column : 0;
#pragma unroll
    for (int i = 0; i < tile_rows / down; ++i) {
      const int row = top + i * down;
      copy_word(&s.x[row][place_of(row, word)], x_from[i] + from, inside && x_valid[i]);
    }
#pragma unroll
    for (int i = 0; i < 3 * pass / down; ++i) {
      const int row = top + i * down;
      const std::int64_t plane = row < pass ? 0 : row < 2 * pass ? 1 : 2 + my_block;
      copy_word(&s.factor[row][place_of(row, word)],
                factors + (plane * padded + rank0 + row % pass) * in + (inside ? 8 * word : 0) + from,
                inside);
    }
    commit_copies();
  };

  const int steps = static_cast<int>((in + tile_cols - 1) / tile_cols);
  for (std::int64_t rank0 = 0; rank0 < columns.ranks; rank0 += pass) {
    float sum[3][pass / 8][4] = {};  // [high(A), low(A), Z_A][8 ranks][fragment of 16 rows x 8 ranks]
    __syncthreads();
    for (int i = 0; i < stages - 1; ++i) {
      if (i < steps) {
        load(i, i * tile_cols, rank0);
      } else {
        commit_copies();
      }
    }
    for (int step = 0; step < steps; ++step) {
      wait_copies<stages - 2>();
      __syncthreads();
      const int next = step + stages - 1;
      if (next < steps) {
        load(next % stages, next * tile_cols, rank0);
      } else {
        commit_copies();
      }
      const Stage<pass>& s = stage[step % stages];
#pragma unroll
      for (int k = 0; k < tile_cols / 32; ++k) {
        const int word0 = (second_half ? words / 2 : 0) + 2 * k;
        std::uint32_t a[4];
        const int a_row = first_of_warp + lane % 16;
        load_matrices(a, shared_address(&s.x[a_row][place_of(a_row, word0 + lane / 16)]));
#pragma unroll
        for (int tile = 0; tile < 3 * pass / 8; ++tile) {
          std::uint32_t b[2];
          const int b_row = 8 * tile + lane % 8;
          load_matrices(b, shared_address(&s.factor[b_row][place_of(b_row, word0 + lane / 8 % 2)]));
          multiply_add(sum[tile / (pass / 8)][tile % (pass / 8)], a, b[0], b[1]);
        }
      }
    }
    // The second halves' sums pass through shared memory.
    __syncthreads();
    constexpr int sums = 3 * pass / 8 * 4;
    float* const exchange = reinterpret_cast<float*>(shared) + (warp % 2 * 32 + lane) * (sums + 1);
    for (int e = 0; e < sums && second_half; ++e) exchange[e] = (&sum[0][0][0])[e];
    __syncthreads();
    if (second_half) continue;
#pragma unroll
    for (int e = 0; e < sums; ++e) (&sum[0][0][0])[e] += exchange[e];
      // Element i of a fragment: row lane / 4 + 8 (i / 2), rank 2 (lane % 4) + i % 2.
#pragma unroll
    for (int e = 0; e < pass / 8 * 4; ++e) {
      const int tile = e / 4;
      const int i = e % 4;
      const std::int64_t row = first_row + first_of_warp + lane / 4 + 8 * (i / 2);
      const std::int64_t rank = rank0 + 8 * tile + 2 * (lane % 4) + i % 2;
      const int owner = tail_of(tails, rank);
      if (row >= rows || owner < 0) continue;
      const float a = sum[0][tile][i] + sum[1][tile][i];
      const bool outer = tails.tail[owner].a == nullptr;
      const float value = epsilon != 0.0f ? fmaf(outer ? 1.0f : epsilon, sum[2][tile][i], a) : a;
      if (to.s != nullptr) {
        to.s[(copy * rows + row) * columns.ranks + rank] = value;
        continue;
      }
      const float s = tails.tail[owner].scaling * value;
      bf16* const tail = x.row(copy, row) + in;
      if (columns.base > 0) {
        const bf16 high = __float2bfloat16_rn(s);
        tail[rank] = high;
        tail[columns.ranks + rank] = __float2bfloat16_rn(s - __bfloat162float(high));
      }
      tail[own_block + rank] = __float2bfloat16_rn(epsilon * s);
    }
  }
}

cudaError_t launch_project(Matrices x, std::int64_t rows, std::int64_t in, std::int64_t copies,
                           const LowRanks& tails, const Projected& to, const Perturbation* perturbations,
                           const std::int32_t* direction_block, const void* factors, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (x.dtype != DType::bf16 || in % 8 != 0) return cudaErrorInvalidValue;
  const auto launch = [&]<int pass>(std::integral_constant<int, pass>) {
    constexpr int bytes = stages * static_cast<int>(sizeof(Stage<pass>));
    const cudaError_t status =
        cudaFuncSetAttribute(project_tile<pass>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status != cudaSuccess) return status;
    project_tile<pass><<<dim3(blocks(rows, tile_rows), blocks(copies, 1)), warps * 32, bytes, stream>>>(
        typed<bf16>(x), rows, in, tails, to, perturbations, direction_block,
        static_cast<const bf16*>(factors), padded_ranks(to.columns.ranks));
    return cudaGetLastError();
  };
  return pass_of(to.columns.ranks) == 8 ? launch(std::integral_constant<int, 8>())
                                        : launch(std::integral_constant<int, 16>());
}

}  // namespace

cudaError_t project_factors(const LowRanks& tails, std::int64_t ranks, std::int64_t in, NoiseKind noise,
                            const Perturbation* perturbations, const std::int32_t* first_probe,
                            std::int64_t direction_blocks, void* factors, cudaStream_t stream) {
  constexpr int threads = 128;
  const dim3 grid(blocks(in, 4 * threads), static_cast<std::uint32_t>(padded_ranks(ranks)),
                  static_cast<std::uint32_t>(1 + direction_blocks));
  write_factors<<<grid, threads, 0, stream>>>(tails, in, noise, perturbations, first_probe,
                                              static_cast<bf16*>(factors));
  return cudaGetLastError();
}

cudaError_t project_columns(Matrices x, std::int64_t rows, std::int64_t in, std::int64_t copies,
                            const LowRanks& tails, const TailColumns& columns,
                            const Perturbation* perturbations, const std::int32_t* direction_block,
                            std::int64_t blocks_a_range, const void* factors, cudaStream_t stream) {
  return launch_project(x, rows, in, copies, tails, {.columns = columns, .blocks_a_range = blocks_a_range},
                        perturbations, direction_block, factors, stream);
}

cudaError_t project_apart(Matrices x, std::int64_t rows, std::int64_t in, std::int64_t copies,
                          const LowRanks& tails, std::int64_t ranks, const Perturbation* perturbations,
                          const std::int32_t* direction_block, const void* factors, float* s,
                          cudaStream_t stream) {
  return launch_project(x, rows, in, copies, tails, {.columns = tail_columns(ranks, 0), .s = s},
                        perturbations, direction_block, factors, stream);
}

cudaError_t expand(void* weight, std::int64_t row_stride, std::int64_t rows, std::int64_t in,
                   const LowRanks& tails, const TailColumns& columns, NoiseKind noise,
                   const Perturbation* perturbations, const std::int32_t* first_probe,
                   std::int64_t direction_blocks, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  constexpr int threads = 128;
  write_tails<<<blocks(rows * (columns.width() / 8), threads), threads, 0, stream>>>(
      static_cast<bf16*>(weight) + in, row_stride, rows, tails, columns, noise, perturbations, first_probe,
      direction_blocks);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
