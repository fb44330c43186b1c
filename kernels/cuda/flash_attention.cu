#include "kernels/cuda/flash_attention.h"

#include <cmath>
#include <limits>

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/instructions.cuh"

namespace mezzo::cuda {
namespace {

// A block serves 128 queries of one sequence and head. A warp owns `parts` pieces of 16 of them: piece m of
// warp w begins at query 16 * (warps * m + w), so that the warps share evenly what lies below the diagonal.
// Keys come in tiles of 64 from the sequence's first on, whichever queries share the block: a query's sums
// have one order, and a tile or piece that is skipped would have left its bits alone.
constexpr int tile_keys = 64;
constexpr int blocks_of_64 = 3;  // on one multiprocessor, heads of up to 64 dims; 2: more registers each

template <int dims>
struct Shape {
  static constexpr int warps = dims <= 128 ? 4 : 8;
  static constexpr int threads = 32 * warps;
  static constexpr int parts = dims <= 128 ? 2 : 1;
  static constexpr int queries = 16 * warps * parts;
  static constexpr int part_stride = 16 * warps;  // queries from one piece of a warp to its next
  // Elements from one row of a tile to the next: an odd number of 16-byte words, so that the 8 rows an
  // 8 x 8 matrix is loaded from meet no bank twice.
  static constexpr int stride = dims + 8;
  static constexpr int blocks = dims <= 64 ? blocks_of_64 : dims <= 128 ? 2 : 1;  // on one multiprocessor
  static constexpr int shared_bytes = (queries + 4 * tile_keys) * stride * 2;
  // Rotation: a thread has 8 pairs of every `down`-th row of a tile.
  static constexpr int across = dims <= 64 ? 4 : dims <= 128 ? 8 : 16;  // threads a row
  static constexpr int down = threads / across;
  static constexpr int query_turns = queries / down, key_turns = tile_keys / down;  // rows of a thread
  static_assert(dims % 16 == 0 && queries == 128 && key_turns % 2 == 0);
};

/// threadIdx.x or x, read anew: what a loop computes from it is not kept in registers from round to round.
__device__ inline int thread_now() {
  int x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}
__device__ inline std::int64_t now(std::int64_t x) {
  asm volatile("" : "+l"(x));
  return x;
}

/// Copies 16 bytes, or puts 16 zero bytes where `bytes` is 0 (`from` is not read then).
__device__ inline void copy_async(std::uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
/// Copies 4 bytes.
__device__ inline void copy_async(std::int32_t* to, const std::int32_t* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ inline float low_of(std::uint32_t x) { return __uint_as_float(x << 16); }
__device__ inline float high_of(std::uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

// ---- tiles

/// tile [tile_rows, stride] = the rows at `from`; zero from row `rows` and dimension `head_dim` on.
template <int dims, int tile_rows>
__device__ inline void fetch(bf16* tile, const bf16* from, std::int64_t row_stride, int rows, int head_dim) {
  constexpr int across = dims <= 64 ? 8 : dims <= 128 ? 16 : 32;  // threads a row, one a 16-byte word
  constexpr int down = Shape<dims>::threads / across;
  static_assert(tile_rows % down == 0);
  row_stride = now(row_stride);
  const int thread = thread_now();
  const int word = thread % across;
  const int row = thread / across;
  if (dims % (8 * across) != 0 && 8 * word >= dims) return;
  const bf16* source = from + row * row_stride + 8 * word;
  const std::uint32_t to = shared_address(tile + row * Shape<dims>::stride + 8 * word);
  const int real_rows = 8 * word < head_dim ? rows - row : 0;
#pragma unroll
  for (int i = 0; i < tile_rows; i += down) {
    copy_async(to + i * Shape<dims>::stride * 2, source, i < real_rows ? 16 : 0);
    source += down * row_stride;
  }
}

// Rotation of tiles in shared memory. Its tables come from the L2 cache: a thread asks for those of all its
// rows at once, into registers: for queries while these are on their way.

/// Rotary as the kernel has it.
struct Turn {
  const std::int32_t* positions;  ///< null: nothing is rotated
  const float *cosines, *sines;
  std::int32_t table_stride;
  std::int32_t places;
  std::int32_t half;  ///< of the rotated dimensions
  bool half_split, queries, keys;
  std::uint32_t* fault;
};

/// 16 bytes of shared memory, 8 elements.
struct Word {
  std::uint32_t x[4];

  __device__ void load(const bf16* from) {
    const uint4 word = *reinterpret_cast<const uint4*>(from);
    x[0] = word.x, x[1] = word.y, x[2] = word.z, x[3] = word.w;
  }
  __device__ void store(bf16* to) const {
    *reinterpret_cast<uint4*>(to) = make_uint4(x[0], x[1], x[2], x[3]);
  }
};
/// Of 8 pairs. Asked for where it is written: the compiler does not move the loads to where they are used.
struct Table {
  float cosines[8], sines[8];

  __device__ static void load(float* to, const float* from) {
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
                 : "l"(from));
  }
  __device__ void load(const float* cosine, const float* sine) {
    load(cosines, cosine);
    load(cosines + 4, cosine + 4);
    load(sines, sine);
    load(sines + 4, sine + 4);
  }
};

/// The first row of the thread in a tile. Eight neighbouring threads store 16 bytes each at once: of 64
/// dimensions they have two rows, which are to be four apart for the banks' sake.
template <int dims>
__device__ inline int turned_row(int thread) {
  if constexpr (Shape<dims>::across == 4) return thread / 32 * 8 + thread / 4 % 2 * 4 + thread / 8 % 4;
  return thread / Shape<dims>::across;
}
template <int dims>
__device__ inline int turned_pair(int thread) {
  return thread % Shape<dims>::across * 8;
}

/// The tables of the thread's rows among the tile's first `rows`; position(i) is that of its i-th.
template <int dims, int count, typename Position>
__device__ inline void load_tables(Table (&tables)[count], const Turn& turn, int rows, Position position) {
  const int j = min(turned_pair<dims>(thread_now()), turn.half - 8);  // threads beyond have no work
  bool fault = false;
#pragma unroll
  for (int i = 0; i < count; i += 2) {
    if (i * Shape<dims>::down >= rows) break;
#pragma unroll
    for (int n = i; n < i + 2; ++n) {
      const int at = position(n);
      const bool outside = static_cast<std::uint32_t>(at) >= static_cast<std::uint32_t>(turn.places);
      const std::int64_t from = std::int64_t{outside ? 0 : at} * turn.table_stride + j;
      tables[n].load(turn.cosines + from, turn.sines + from);
      fault = fault || outside;
    }
  }
  if (fault) report(turn.fault, Fault::position);
}

/// Rotates 8 pairs of row `to` and of the row `down` below it.
template <int dims>
__device__ inline void rotate_two(bf16* to, const Table& upper, const Table& lower, const Turn& turn) {
  constexpr int below = Shape<dims>::down * Shape<dims>::stride;
  const Table* const table[2] = {&upper, &lower};
  Word first[2], second[2];
  if (turn.half_split) {  // pairs (first, second)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      first[i].load(to + i * below);
      second[i].load(to + i * below + turn.half);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        std::uint32_t& x = first[i].x[e];
        std::uint32_t& y = second[i].x[e];
        float a[2] = {low_of(x), high_of(x)};
        float b[2] = {low_of(y), high_of(y)};
        rotate_pair(a[0], b[0], table[i]->cosines[2 * e], table[i]->sines[2 * e]);
        rotate_pair(a[1], b[1], table[i]->cosines[2 * e + 1], table[i]->sines[2 * e + 1]);
        x = pack(a[0], a[1]);
        y = pack(b[0], b[1]);
      }
      first[i].store(to + i * below);
      second[i].store(to + i * below + turn.half);
    }
  } else {  // pairs in either
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      first[i].load(to + i * below);
      second[i].load(to + i * below + 8);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        std::uint32_t& x = first[i].x[e];
        std::uint32_t& y = second[i].x[e];
        float a[2] = {low_of(x), low_of(y)};
        float b[2] = {high_of(x), high_of(y)};
        rotate_pair(a[0], b[0], table[i]->cosines[e], table[i]->sines[e]);
        rotate_pair(a[1], b[1], table[i]->cosines[e + 4], table[i]->sines[e + 4]);
        x = pack(a[0], b[0]);
        y = pack(a[1], b[1]);
      }
      first[i].store(to + i * below);
      second[i].store(to + i * below + 8);
    }
  }
}

/// Rotates at least the first `rows` rows of a tile; what it has beyond them is not used. The same tables
/// serve `keys`, two tiles of keys that lie `apart` elements apart and have the same tokens, if it is given.
template <int dims, int count>
__device__ inline void rotate_tile(bf16* tile, const Table (&tables)[count], const Turn& turn, int rows,
                                   bf16* keys = nullptr, int apart = 0) {
  constexpr int down = Shape<dims>::down, stride = Shape<dims>::stride;
  const int thread = thread_now();
  const int j = turned_pair<dims>(thread);
  if (j >= turn.half) return;
  const int offset = turned_row<dims>(thread) * stride + (turn.half_split ? j : 2 * j);
#pragma unroll
  for (int i = 0; i < count; i += 2) {
    if (i * down >= rows) return;
    rotate_two<dims>(tile + offset + i * down * stride, tables[i], tables[i + 1], turn);
    if (keys != nullptr) {
      bf16* const half = keys + (i * down >= tile_keys ? apart : 0);
      rotate_two<dims>(half + offset + i * down % tile_keys * stride, tables[i], tables[i + 1], turn);
    }
  }
}

/// How many of `count` ascending values are below `wanted`. All lanes of a warp call it: 32 probes a step.
__device__ inline std::int64_t count_below(const std::int32_t* values, std::int64_t count,
                                           std::int64_t wanted) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::int64_t first = 0;
  while (count > 0) {
    const std::int64_t piece = (count + 31) / 32;
    const std::int64_t last = (lane + 1) * piece - 1;  // of this lane's piece
    const bool below = last < count && values[first + last] < wanted;
    const std::int64_t whole = __popc(__ballot_sync(0xffffffffu, below)) * piece;
    first += whole;
    count = min(piece - 1, count - whole);
  }
  return first;
}

// ---- a warp's work on one tile of keys

/// What a block's threads look up rather than hold in registers, which are short.
struct Block {
  const bf16 *keys, *values;    ///< of the sequence and head
  std::int64_t q0;              ///< row of the first query
  std::int64_t begin;           ///< first token of the sequence
  int length;                   ///< of the sequence
  int count;                    ///< queries
  int column;                   ///< first of the head in q and out
  int token[128];               ///< of each query in the sequence; beyond the last query, its token
  bool turn_keys;               ///< tile by tile
  int positions[2][tile_keys];  ///< of the keys of tile j: row j % 2
};

/// What a lane keeps of its warp's queries: rows g and g + 8 of each piece.
template <int dims>
struct Sums {
  static constexpr int parts = Shape<dims>::parts;
  float largest[parts][2];
  float total[parts][2];          ///< this lane's columns only, until the end
  float out[parts][dims / 8][4];  ///< as multiply_add has them: columns 8n + 2c and the next
};

/// What some models add to causal attention.
struct Form {
  int window;   ///< keys that a query sees; 0: all up to its own
  float cap;    ///< c of c tanh(scale q.k / c); 0: none
  float scale;  ///< of q.k where there is a cap
};

/// Pieces [from, to) of the warp's queries on one tile of keys, whose first is the sequence's key `k0`.
/// masked: keys beyond a query's own token count for nothing. shaped: `form` is looked at, and `scale` is of
/// what it makes of q.k. `tokens`: of the warp's queries. `scale` has
/// log2(e) in it.
/// query_at, key_at: this lane's addresses in the warp's first queries and in the tile of keys. Of 16 x 16
/// elements the matrices are rows 0-7 and 8-15 at columns 0-7, then both at columns 8-15.
template <int dims, int from, int to, bool masked, bool shaped>
__device__ __forceinline__ void attend_keys(Sums<dims>& sums, std::uint32_t query_at, std::uint32_t key_at,
                                            int k0, const int* tokens, float scale, const Form& form) {
  constexpr int row_bytes = Shape<dims>::stride * 2;
  const std::uint32_t value_at = key_at + tile_keys * row_bytes;
  const int lane = thread_now() % 32;
  float s[Shape<dims>::parts][tile_keys / 8][4];  // queries x keys
#pragma unroll
  for (int m = from; m < to; ++m) {
#pragma unroll
    for (int n = 0; n < tile_keys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[m][n][i] = 0.0f;
    }
  }
#pragma unroll
  for (int d = 0; d < dims / 16; ++d) {
    std::uint32_t query[Shape<dims>::parts][4];
#pragma unroll
    for (int m = from; m < to; ++m) {
      load_matrices(query[m], query_at + m * Shape<dims>::part_stride * row_bytes + 32 * d);
    }
#pragma unroll
    for (int n = 0; n < tile_keys / 16; ++n) {
      std::uint32_t key[4];
      load_matrices(key, key_at + 16 * n * row_bytes + 32 * d);
#pragma unroll
      for (int m = from; m < to; ++m) {
        multiply_add(s[m][2 * n], query[m], key[0], key[2]);
        multiply_add(s[m][2 * n + 1], query[m], key[1], key[3]);
      }
    }
  }

  // Online softmax (Milakov and Gimelshein 2018). Without a window every query sees the sequence's first key:
  // `largest` is finite from the first tile on, and where nothing more is seen `shrink` is 1 and the weights
  // are 0.
#pragma unroll
  for (int m = from; m < to; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = masked ? tokens[m * Shape<dims>::part_stride + 8 * h + lane / 4] : 0;
      float most = sums.largest[m][h];
#pragma unroll
      for (int n = 0; n < tile_keys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = s[m][n][2 * h + i];
          if (shaped && form.cap != 0.0f) score = soft_capped(score * form.scale, form.cap);
          if (masked) {
            const int key = k0 + 8 * n + 2 * (lane % 4) + i;
            if (key > token || (shaped && form.window > 0 && key <= token - form.window)) score = -INFINITY;
          }
          most = fmaxf(most, score);
        }
      }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float less = shaped && most == -INFINITY ? 0.0f : most;  // the query has seen no key yet
      const float shrink = power_of_two(__fmul_rn(sums.largest[m][h] - less, scale));
      const float offset = -__fmul_rn(less, scale);
      sums.largest[m][h] = most;
      float total = __fmul_rn(sums.total[m][h], shrink);
#pragma unroll
      for (int n = 0; n < tile_keys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& weight = s[m][n][2 * h + i];
          weight = power_of_two(__fmaf_rn(weight, scale, offset));
          total += weight;
        }
      }
      sums.total[m][h] = total;
#pragma unroll
      for (int n = 0; n < dims / 8; ++n) {
        sums.out[m][n][2 * h] *= shrink;
        sums.out[m][n][2 * h + 1] *= shrink;
      }
    }
  }

#pragma unroll
  for (int n = 0; n < tile_keys / 16; ++n) {
    std::uint32_t weight[Shape<dims>::parts][4];  // s [16, 16 of the keys] lies as multiply_add wants its a
#pragma unroll
    for (int m = from; m < to; ++m) {
      weight[m][0] = pack(s[m][2 * n][0], s[m][2 * n][1]);
      weight[m][1] = pack(s[m][2 * n][2], s[m][2 * n][3]);
      weight[m][2] = pack(s[m][2 * n + 1][0], s[m][2 * n + 1][1]);
      weight[m][3] = pack(s[m][2 * n + 1][2], s[m][2 * n + 1][3]);
    }
#pragma unroll
    for (int d = 0; d < dims / 16; ++d) {
      std::uint32_t value[4];
      load_transposed(value, value_at + 16 * n * row_bytes + 32 * d);
#pragma unroll
      for (int m = from; m < to; ++m) {
        multiply_add(sums.out[m][2 * d], weight[m], value[0], value[1]);
        multiply_add(sums.out[m][2 * d + 1], weight[m], value[2], value[3]);
      }
    }
  }
}

/// each_keys: keys may have to be rotated tile by tile. shaped: there is a window or a cap; keys are not
/// rotated then.
template <int dims, bool each_keys, bool shaped>
__global__ void __launch_bounds__(Shape<dims>::threads, Shape<dims>::blocks)
    flash_tile(Attention a, Turn turn, Form form, std::uint32_t tiles_a_sequence, Typed<const bf16> q,
               Typed<const bf16> k, Typed<const bf16> v, Typed<bf16> out) {
  using S = Shape<dims>;
  constexpr int tile = tile_keys * S::stride;
  extern __shared__ uint4 shared[];
  bf16* const query_tile = reinterpret_cast<bf16*>(shared);     // [queries, stride]
  bf16* const key_tiles = query_tile + S::queries * S::stride;  // [2, keys and values, tile_keys, stride]
  __shared__ Block block;
  const int head_dim = static_cast<int>(a.head_dim);
  const std::uint32_t copy = blockIdx.y;
  const auto heads = static_cast<std::uint32_t>(a.heads);
  const std::uint32_t head = blockIdx.x / tiles_a_sequence % heads;

  const auto fetch_keys = [&](int j, const bf16* keys, int length) {
    const int k0 = j * tile_keys;
    fetch<dims, tile_keys>(key_tiles + j % 2 * 2 * tile, keys + k0 * k.row_stride, k.row_stride, length - k0,
                           head_dim);
  };
  const auto fetch_values = [&](int j, const bf16* values, int length) {
    const int k0 = j * tile_keys;
    fetch<dims, tile_keys>(key_tiles + j % 2 * 2 * tile + tile, values + k0 * v.row_stride, v.row_stride,
                           length - k0, head_dim);
  };
  const auto fetch_positions = [&](int j, std::int64_t begin, int length) {
    const int row = thread_now();
    if (row >= tile_keys) return;
    copy_async(&block.positions[j % 2][row], turn.positions + begin + min(j * tile_keys + row, length - 1));
  };
  int key_tiles_seen;
  int first_tile = 0;
  {
    // The last queries of a sequence, which see most keys, come first. Blocks that share keys are neighbours.
    const std::uint32_t query_block = tiles_a_sequence - 1 - blockIdx.x % tiles_a_sequence;
    const std::uint32_t sequence = blockIdx.x / tiles_a_sequence / heads;
    const std::int64_t begin = a.offsets[sequence];
    const std::int64_t end = a.offsets[sequence + 1];
    const std::int64_t first = a.query_rows != nullptr ? count_below(a.query_rows, a.queries, begin) : begin;
    const std::int64_t last = a.query_rows != nullptr ? count_below(a.query_rows, a.queries, end) : end;
    const std::int64_t q0 = first + std::int64_t{query_block} * S::queries;
    if (q0 >= last) return;
    const int count = static_cast<int>(min(last - q0, std::int64_t{S::queries}));
    const int length = static_cast<int>(end - begin);
    const auto token = [&](int query) {
      return static_cast<int>((a.query_rows != nullptr ? a.query_rows[q0 + query] : q0 + query) - begin);
    };
    key_tiles_seen = token(count - 1) / tile_keys + 1;
    if (shaped && form.window > 0) first_tile = max(token(0) - form.window + 1, 0) / tile_keys;

    const std::int64_t key_column = head / static_cast<std::uint32_t>(a.heads / a.kv_heads) * a.head_dim;
    const bf16* const keys = k.row(copy, begin) + key_column;
    const bf16* const values = v.row(copy, begin) + key_column;
    // The first queries of a sequence have the tokens of the keys that they see: one table serves both.
    const bool turn_queries = turn.queries;
    const bool together = turn_queries && turn.keys && a.query_rows == nullptr && q0 == begin;
    const bool turn_keys = each_keys && !together;
    int positions[S::query_turns];
    if (turn_queries) {
      const int row = turned_row<dims>(thread_now());
#pragma unroll
      for (int i = 0; i < S::query_turns; ++i) {
        positions[i] = __ldg(turn.positions + begin + token(min(row + i * S::down, count - 1)));
      }
    }
    // Three groups of copies: what is rotated first, the first values, the second tile.
    fetch<dims, S::queries>(query_tile, q.row(copy, q0) + std::int64_t{head} * head_dim, q.row_stride, count,
                            head_dim);
    fetch_keys(first_tile, keys, length);
    if (together && key_tiles_seen > 1) fetch_keys(1, keys, length);
    if (turn_keys) fetch_positions(0, begin, length);
    commit_copies();
    Table tables[S::query_turns];
    if (turn_queries) load_tables<dims>(tables, turn, count, [&](int i) { return positions[i]; });
    fetch_values(first_tile, values, length);
    commit_copies();
    if (key_tiles_seen > first_tile + 1) {
      if (!together) fetch_keys(first_tile + 1, keys, length);
      fetch_values(first_tile + 1, values, length);
      if (turn_keys) fetch_positions(1, begin, length);
    }
    commit_copies();
    if (threadIdx.x == 0) {
      block.keys = keys;
      block.values = values;
      block.q0 = q0;
      block.begin = begin;
      block.length = length;
      block.count = count;
      block.column = static_cast<int>(head) * head_dim;
      block.turn_keys = turn_keys;
    }
    if (threadIdx.x < S::queries) {
      block.token[threadIdx.x] = token(min(static_cast<int>(threadIdx.x), count - 1));
    }
    if (turn_queries || each_keys) {  // which reads `block` before the loop's barrier
      wait_copies<2>();
      __syncthreads();
      if (turn_queries) {
        rotate_tile<dims>(query_tile, tables, turn, count, together ? key_tiles : nullptr, 2 * tile);
      }
    }
  }

  std::uint32_t query_at, tiles_at;
  {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int lane_at = (lane % 16 * S::stride + lane / 16 * 8) * 2;
    query_at = shared_address(query_tile + 16 * warp * S::stride) + lane_at;
    tiles_at = shared_address(key_tiles) + lane_at;
  }
  Sums<dims> sums;
#pragma unroll
  for (int m = 0; m < S::parts; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sums.largest[m][h] = -INFINITY;
      sums.total[m][h] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < dims / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums.out[m][n][i] = 0.0f;
    }
  }

#pragma unroll 1
  for (int j = first_tile; j < key_tiles_seen; ++j) {
    const bool turn_keys = each_keys && block.turn_keys;
    if (j == first_tile) {
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();  // tile j is there for everyone, and everyone is done with tile j - 1
    if (j > first_tile && j + 1 < key_tiles_seen) {
      fetch_keys(j + 1, block.keys, block.length);
      fetch_values(j + 1, block.values, block.length);
      if (turn_keys) fetch_positions(j + 1, block.begin, block.length);
      commit_copies();
    }
    const int k0 = j * tile_keys;
    if (turn_keys) {
      Table tables[S::key_turns];
      const std::int32_t* const positions = block.positions[j % 2] + turned_row<dims>(thread_now());
      load_tables<dims>(tables, turn, tile_keys, [&](int i) { return positions[i * S::down]; });
      rotate_tile<dims>(key_tiles + j % 2 * 2 * tile, tables, turn, block.length - k0);
      __syncthreads();
    }

    const std::uint32_t key_at = tiles_at + j % 2 * 2 * tile * 2;
    const int first_query = thread_now() / 32 * 16;
    const int* const tokens = block.token + first_query;
    // All of the warp's queries see all of the tile. Of a window that is not asked.
    const bool whole = !shaped && k0 + tile_keys - 1 <= tokens[0];
    const auto sees = [&](int piece) {
      const bool in_window = !shaped || form.window == 0 || k0 + tile_keys - 1 > tokens[piece] - form.window;
      return first_query + piece < block.count && k0 <= tokens[piece + 15] && in_window;
    };
    const bool seen = sees(0);
    if constexpr (S::parts == 1) {
      if (!seen) continue;
      if (whole) {
        attend_keys<dims, 0, 1, false, shaped>(sums, query_at, key_at, k0, tokens, a.scale, form);
      } else {
        attend_keys<dims, 0, 1, true, shaped>(sums, query_at, key_at, k0, tokens, a.scale, form);
      }
    } else {
      const bool seen_by_second = sees(S::part_stride);
      if (seen && seen_by_second && whole) {
        attend_keys<dims, 0, 2, false, shaped>(sums, query_at, key_at, k0, tokens, a.scale, form);
      } else if (seen && seen_by_second) {
        attend_keys<dims, 0, 2, true, shaped>(sums, query_at, key_at, k0, tokens, a.scale, form);
      } else if (seen) {
        attend_keys<dims, 0, 1, true, shaped>(sums, query_at, key_at, k0, tokens, a.scale, form);
      } else if (seen_by_second) {
        attend_keys<dims, 1, 2, true, shaped>(sums, query_at, key_at, k0, tokens, a.scale, form);
      }
    }
  }

  const int warp = thread_now() / 32;
  const int lane = thread_now() % 32;
  // The results take the place of the warp's own queries, then leave as whole words.
#pragma unroll
  for (int m = 0; m < S::parts; ++m) {
    const int row = m * S::part_stride + 16 * warp;
    bf16* const results = query_tile + row * S::stride;  // [16, stride]
    __syncwarp();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float total = sums.total[m][h];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float inverse = 1.0f / total;
      auto* const to = reinterpret_cast<std::uint32_t*>(results + (8 * h + lane / 4) * S::stride) + lane % 4;
#pragma unroll
      for (int n = 0; n < dims / 8; ++n) {  // + 0: a zero has no sign that a skipped tile might have changed
        to[4 * n] = pack(__fmaf_rn(sums.out[m][n][2 * h], inverse, 0.0f),
                         __fmaf_rn(sums.out[m][n][2 * h + 1], inverse, 0.0f));
      }
    }
    __syncwarp();
    bf16* const to = out.row(copy, block.q0 + row) + block.column;
#pragma unroll
    for (int e = lane; e < 16 * (dims / 8); e += 32) {
      const int i = e / (dims / 8);
      const int d = e % (dims / 8) * 8;
      if (row + i < block.count && d < head_dim) {
        *reinterpret_cast<uint4*>(to + i * out.row_stride + d) =
            *reinterpret_cast<const uint4*>(results + i * S::stride + d);
      }
    }
  }
}

template <int dims>
cudaError_t launch(const Attention& a, const Rotary& rotary, std::int64_t copies, cudaStream_t stream) {
  constexpr int bytes = Shape<dims>::shared_bytes;
  const bool turned = rotary.positions != nullptr && rotary.rotation.dims > 0;
  const bool first_only = rotary.queries && a.query_rows == nullptr && a.longest <= Shape<dims>::queries;
  const bool shaped = a.window > 0 || a.soft_cap != 0.0f;
  if (shaped && turned && rotary.keys) return cudaErrorInvalidValue;
  const auto kernel = shaped                                 ? flash_tile<dims, false, true>
                      : turned && rotary.keys && !first_only ? flash_tile<dims, true, false>
                                                             : flash_tile<dims, false, false>;
  const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  const std::int64_t most = std::min(a.longest, a.queries);
  const std::int64_t tiles = (most + Shape<dims>::queries - 1) / Shape<dims>::queries;
  const dim3 grid(blocks(a.sequences * a.heads * tiles, 1), blocks(copies, 1));
  Attention scaled = a;
  const Form form = {static_cast<int>(a.window), a.soft_cap, a.scale};
  scaled.scale = (a.soft_cap != 0.0f ? 1.0f : a.scale) * 1.44269504f;  // log2(e)
  const Rotation& r = rotary.rotation;
  const Turn turn = {rotary.positions,
                     r.cosines,
                     r.sines,
                     static_cast<std::int32_t>(r.table_stride),
                     static_cast<std::int32_t>(r.places),
                     static_cast<std::int32_t>(r.dims / 2),
                     r.half_split,
                     turned && rotary.queries,
                     turned && rotary.keys,
                     rotary.fault};
  kernel<<<grid, Shape<dims>::threads, bytes, stream>>>(scaled, turn, form, static_cast<std::uint32_t>(tiles),
                                                        typed<const bf16>(a.q), typed<const bf16>(a.k),
                                                        typed<const bf16>(a.v), typed<bf16>(a.out));
  return cudaGetLastError();
}

/// f(the head's dimensions, rounded up to those that there is a kernel for).
template <typename F>
auto by_dims(std::int64_t head_dim, F f) {
  if (head_dim <= 64) return f(std::integral_constant<int, 64>());
  if (head_dim <= 80) return f(std::integral_constant<int, 80>());
  if (head_dim <= 96) return f(std::integral_constant<int, 96>());
  if (head_dim <= 128) return f(std::integral_constant<int, 128>());
  return f(std::integral_constant<int, 256>());
}

std::size_t tile_bytes(std::int64_t head_dim) {
  return by_dims(head_dim, []<int dims>(std::integral_constant<int, dims>) -> std::size_t {
    return Shape<dims>::shared_bytes;
  });
}

bool whole_words(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }
bool whole_words(const Matrices& m) {
  return m.dtype == DType::bf16 && whole_words(m.data) && m.row_stride % 8 == 0 && m.copy_stride % 8 == 0;
}

}  // namespace

bool flash_attend_fits(const Attention& a, std::size_t shared_bytes) {
  const bool matrices = whole_words(a.q) && whole_words(a.k) && whole_words(a.v) && whole_words(a.out);
  const bool heads = a.kv_heads > 0 && a.heads % a.kv_heads == 0;
  const bool dims = a.head_dim > 0 && a.head_dim % 8 == 0 && a.head_dim <= 256;
  const bool grid = a.longest < std::numeric_limits<std::int32_t>::max() - tile_keys &&
                    a.sequences * a.heads * (a.longest / 128 + 1) < std::numeric_limits<std::int32_t>::max();
  const bool form =
      a.window >= 0 && a.window < std::numeric_limits<std::int32_t>::max() && a.soft_cap >= 0.0f;
  const bool room = dims && tile_bytes(a.head_dim) + sizeof(Block) <= shared_bytes;
  return matrices && heads && room && grid && form && a.scale > 0.0f && std::isfinite(a.scale);
}

bool flash_rotary_fits(const Rotation& r) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  return r.dims % 16 == 0 && r.table_stride % 4 == 0 && r.table_stride <= most && r.places <= most &&
         whole_words(r.cosines) && whole_words(r.sines);
}

bool keys_first(const Attention& a, std::int64_t copies) {
  if (a.window > 0 || a.soft_cap != 0.0f) return true;
  // rotate() reads and writes a tile of keys once, in the time of about `tiles_a_pass` rotations inside of
  // flash_attend. There it is rotated for each query head, and in the mean by half of the tiles of queries.
  // Of a sequence of one tile that is half hidden behind its loads.
  if (a.queries == 0 || a.sequences == 0 || a.kv_heads == 0) return false;
  const std::int64_t queries =
      a.query_rows != nullptr ? (a.queries + a.sequences - 1) / a.sequences : a.longest;
  const std::int64_t tiles = (std::min(queries, a.longest) + 127) / 128;
  const std::int64_t tiles_a_pass = tiles > 1 ? 2 : 4;
  const std::int64_t sharing = a.heads / a.kv_heads * (a.k.copy_stride == 0 ? copies : 1);
  return sharing * (tiles + 1) > 2 * tiles_a_pass;
}

cudaError_t flash_attend(const Attention& a, const Rotary& rotary, std::int64_t copies, cudaStream_t stream) {
  if (a.queries == 0 || copies == 0) return cudaSuccess;
  constexpr auto any = std::numeric_limits<std::size_t>::max();  // a launch that does not fit says so itself
  if (!flash_attend_fits(a, any) || copies > 65535) return cudaErrorInvalidValue;
  if (rotary.positions != nullptr &&
      (!flash_rotary_fits(rotary.rotation) || rotary.rotation.dims > a.head_dim)) {
    return cudaErrorInvalidValue;
  }
  return by_dims(a.head_dim, [&]<int dims>(std::integral_constant<int, dims>) {
    return launch<dims>(a, rotary, copies, stream);
  });
}

}  // namespace mezzo::cuda
