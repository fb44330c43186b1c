#include "kernels/cuda/decoding.h"

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

template <typename T>
__global__ void scatter_rows(Typed<const T> from, const std::int32_t* index, bool eights, std::int64_t cols,
                             Typed<T> to, std::int64_t to_rows, std::uint32_t* fault) {
  const std::int64_t row = index[blockIdx.x];
  if (row < 0 || row >= to_rows) return report(fault, Fault::row);
  const T* const source = from.row(blockIdx.y, blockIdx.x);
  T* const target = to.row(blockIdx.y, row);
  if (eights) {
    constexpr std::int64_t unit = 16 / sizeof(T);
    for (std::int64_t j = unit * threadIdx.x; j < cols; j += unit * blockDim.x)
      *reinterpret_cast<uint4*>(target + j) = *reinterpret_cast<const uint4*>(source + j);
    return;
  }
  for (std::int64_t j = threadIdx.x; j < cols; j += blockDim.x) target[j] = source[j];
}

// ---- attention. A block serves up to `heads_a_block` query heads of one row that read the same keys. A
// key's eights of columns lie one a lane, so that 32 / lanes keys share a warp; each such team has every
// teams-th stretch of `stretch` keys, with an online softmax of its own (Milakov and Gimelshein 2018), and
// the teams are added up in order at the end. What a query gets so depends on the number of its keys alone.
constexpr int decode_threads = 128;
constexpr int stretch = 4;

/// What the kernel is told beside the operands' types.
struct Seen {
  int first, length;  // keys [first, length) of the sequence
  int prompt_begin, prompt_length;
  int own_begin;
};

template <typename T>
struct DecodeOperands {
  Typed<const T> q, k, v, prompt_k, prompt_v;
  Typed<T> own_k, own_v, out;
};

/// 8 columns from `from` on, of which only those before `width` are there; all at once where `eights`.
template <typename T>
__device__ inline void load_eight(const T* from, int width, bool eights, float* to) {
  if (eights) return load8(from, to);
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = i < width ? to_float(from[i]) : 0.0f;
}

/// A head's columns in shared memory as they are read from memory, turned and rounded.
template <typename T>
__device__ inline void load_head(float* head, const T* from, int head_dim, const Rotation& r,
                                 std::int64_t position) {
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += decode_threads) head[d] = to_float(from[d]);
  __syncthreads();
  const int half = static_cast<int>(r.dims) / 2;
  for (int j = static_cast<int>(threadIdx.x); j < half; j += decode_threads) {
    float& first = head[r.half_split ? j : 2 * j];
    float& second = head[r.half_split ? j + half : 2 * j + 1];
    rotate_pair(first, second, r.cosines[position * r.table_stride + j],
                r.sines[position * r.table_stride + j]);
    first = to_float(from_float<T>(first));
    second = to_float(from_float<T>(second));
  }
}

template <typename T, int lanes, int heads_a_block>
__global__ void __launch_bounds__(decode_threads)
    decode_rows(Decoding a, DecodeOperands<T> x, bool eights, std::uint32_t* fault) {
  constexpr int teams = decode_threads / lanes;
  extern __shared__ float shared[];
  const int head_dim = static_cast<int>(a.head_dim);
  const int padded = 8 * lanes;                               // columns of a head that teams go through
  float* const query = shared;                                // [heads_a_block][padded]
  float* const sums = query + heads_a_block * padded;         // [teams][heads_a_block][padded]
  float* const tops = sums + teams * heads_a_block * padded;  // [teams][heads_a_block] largest, then totals
  __shared__ float turned[256];

  const std::int64_t row = blockIdx.x;
  const std::int64_t copy = blockIdx.z;
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int parts = (group + heads_a_block - 1) / heads_a_block;  // blocks of a key head
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const int first_head = kv_head * group + static_cast<int>(blockIdx.y) % parts * heads_a_block;
  const int count = min(heads_a_block, (kv_head + 1) * group - first_head);

  const std::int64_t place = copy * a.index_stride + row;
  const int own = a.cache_rows[place];
  T* const out = x.out.row(copy, row) + first_head * head_dim;
  if (own < 0) {
    for (int d = static_cast<int>(threadIdx.x); d < count * head_dim; d += decode_threads)
      out[d] = from_float<T>(0.0f);
    return;
  }
  Seen seen;
  seen.prompt_begin = a.prompt_begins[place];
  seen.prompt_length = a.prompt_lengths[place];
  seen.own_begin = static_cast<int>(row * a.slot_rows);
  seen.length = seen.prompt_length + own + 1;
  seen.first = a.window > 0 ? max(seen.length - static_cast<int>(a.window), 0) : 0;
  const std::int64_t position = a.positions[place];
  if (own >= a.slot_rows || seen.own_begin + own >= a.own_rows || seen.prompt_begin < 0 ||
      seen.prompt_length < 0 || seen.prompt_begin + seen.prompt_length > a.prompt_rows)
    return report(fault, Fault::row);
  if (a.rotation.dims > 0 && (position < 0 || position >= a.rotation.places))
    return report(fault, Fault::position);

  // The row's own key and value to the cache, from where this block reads them as all others. (Blocks of one
  // key head write the same.)
  const std::int64_t column = std::int64_t{kv_head} * head_dim;
  load_head(turned, x.k.row(copy, row) + column, head_dim, a.rotation, position);
  __syncthreads();
  T* const own_key = x.own_k.row(copy, seen.own_begin + own) + column;
  T* const own_value = x.own_v.row(copy, seen.own_begin + own) + column;
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += decode_threads) {
    own_key[d] = from_float<T>(turned[d]);
    own_value[d] = x.v.row(copy, row)[column + d];
  }
  for (int h = 0; h < heads_a_block; ++h) {
    const int head = first_head + min(h, count - 1);
    load_head(query + h * padded, x.q.row(copy, row) + head * head_dim, head_dim, a.rotation, position);
    for (int d = head_dim + static_cast<int>(threadIdx.x); d < padded; d += decode_threads)
      query[h * padded + d] = 0.0f;
  }
  __syncthreads();

  const int team = static_cast<int>(threadIdx.x) / lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int width = head_dim - 8 * lane;  // columns that are there from this lane's first on
  float q[heads_a_block][8], sum[heads_a_block][8], largest[heads_a_block], total[heads_a_block];
#pragma unroll
  for (int h = 0; h < heads_a_block; ++h) {
    largest[h] = -INFINITY;
    total[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      q[h][i] = query[h * padded + 8 * lane + i];
      sum[h][i] = 0.0f;
    }
  }
  const int stretches = (seen.length - seen.first + stretch - 1) / stretch;
  // Every team takes part in every turn: lanes exchange across the whole warp.
  for (int turn = 0; turn * teams < stretches; ++turn) {
    const int key0 = seen.first + (turn * teams + team) * stretch;
    float key[stretch][8], value[stretch][8];
#pragma unroll
    for (int s = 0; s < stretch; ++s) {
      const int j = key0 + s;
      const bool here = j < seen.length;
      const bool prompt = j < seen.prompt_length;
      const std::int64_t at =
          here ? (prompt ? seen.prompt_begin + j : seen.own_begin + j - seen.prompt_length) : 0;
      const std::int64_t from = column + 8 * lane;
      const T* const k = (prompt ? x.prompt_k.row(copy, at) : x.own_k.row(copy, at)) + from;
      const T* const v = (prompt ? x.prompt_v.row(copy, at) : x.own_v.row(copy, at)) + from;
      const int there = here ? width : 0;
      if (there > 0) {
        load_eight(k, there, eights, key[s]);
        load_eight(v, there, eights, value[s]);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) key[s][i] = value[s][i] = 0.0f;
      }
    }
#pragma unroll
    for (int h = 0; h < heads_a_block; ++h) {
      float score[stretch];
      float now = largest[h];
#pragma unroll
      for (int s = 0; s < stretch; ++s) {
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) dot = fmaf(q[h][i], key[s][i], dot);
#pragma unroll
        for (int step = lanes / 2; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
        score[s] = dot * a.scale;
        if (a.soft_cap != 0.0f) score[s] = soft_capped(score[s], a.soft_cap);
        if (key0 + s >= seen.length) score[s] = -INFINITY;
        now = fmaxf(now, score[s]);
      }
      const float less = now == -INFINITY ? 0.0f : now;  // the team has seen no key yet
      const float shrink = expf(largest[h] - less);
      largest[h] = now;
      total[h] *= shrink;
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[h][i] *= shrink;
#pragma unroll
      for (int s = 0; s < stretch; ++s) {
        const float weight = expf(score[s] - less);
        total[h] += weight;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[h][i] = fmaf(weight, value[s][i], sum[h][i]);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < heads_a_block; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[(team * heads_a_block + h) * padded + 8 * lane + i] = sum[h][i];
    if (lane == 0) {
      tops[team * heads_a_block + h] = largest[h];
      tops[(teams + team) * heads_a_block + h] = total[h];
    }
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < count * head_dim; e += decode_threads) {
    const int h = e / head_dim;
    const int d = e % head_dim;
    float top = -INFINITY;
    for (int t = 0; t < teams; ++t) top = fmaxf(top, tops[t * heads_a_block + h]);
    float whole = 0.0f;
    float result = 0.0f;
    for (int t = 0; t < teams; ++t) {
      const float own_top = tops[t * heads_a_block + h];
      const float share = own_top == -INFINITY ? 0.0f : expf(own_top - top);
      whole = fmaf(share, tops[(teams + t) * heads_a_block + h], whole);
      result = fmaf(share, sums[(t * heads_a_block + h) * padded + d], result);
    }
    out[e] = from_float<T>(result / whole);
  }
}

template <typename T, int lanes, int heads_a_block>
cudaError_t launch_decode(const Decoding& a, std::int64_t copies, std::uint32_t* fault, cudaStream_t stream) {
  constexpr int teams = decode_threads / lanes;
  const std::size_t floats =
      static_cast<std::size_t>(heads_a_block) * (8 * lanes + teams * 8 * lanes + 2 * teams);
  const auto kernel = decode_rows<T, lanes, heads_a_block>;
  const std::size_t bytes = floats * sizeof(float);
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status != cudaSuccess) return status;
  const std::int64_t group = a.heads / a.kv_heads;
  const std::int64_t parts = (group + heads_a_block - 1) / heads_a_block;
  const auto all = {a.prompt_k, a.prompt_v, a.own_k, a.own_v};
  const bool eights = a.head_dim % 8 == 0 &&
                      std::all_of(all.begin(), all.end(), [](const Matrices& m) { return in_eights(m); });
  const DecodeOperands<T> operands = {
      typed<const T>(a.q),        typed<const T>(a.k), typed<const T>(a.v), typed<const T>(a.prompt_k),
      typed<const T>(a.prompt_v), typed<T>(a.own_k),   typed<T>(a.own_v),   typed<T>(a.out)};
  kernel<<<dim3(blocks(a.rows, 1), blocks(a.kv_heads * parts, 1), blocks(copies, 1)), decode_threads, bytes,
           stream>>>(a, operands, eights, fault);
  return cudaGetLastError();
}

template <typename T, int lanes>
cudaError_t launch_decode(const Decoding& a, std::int64_t copies, std::uint32_t* fault, cudaStream_t stream) {
  if (a.heads == a.kv_heads) return launch_decode<T, lanes, 1>(a, copies, fault, stream);
  return launch_decode<T, lanes, 4>(a, copies, fault, stream);
}

// ---- the choice of tokens: a block a target and copy
constexpr int choice_threads = 512;

/// The better of two tokens: by score, then by id. -1: none.
struct Candidate {
  float score;
  std::int32_t id;

  __device__ void take(float other_score, std::int32_t other) {
    if (other < 0 || (id >= 0 && (other_score < score || (other_score == score && other > id)))) return;
    score = other_score;
    id = other;
  }
};

__device__ inline Candidate best_of_block(Candidate mine) {
  __shared__ Candidate of_warp[choice_threads / 32];
  for (int step = 16; step > 0; step /= 2) {
    const float score = __shfl_xor_sync(0xffffffffu, mine.score, step);
    mine.take(score, __shfl_xor_sync(0xffffffffu, mine.id, step));
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
  Candidate best = of_warp[0];
  for (int w = 1; w < choice_threads / 32; ++w) best.take(of_warp[w].score, of_warp[w].id);
  return best;
}

/// The same bits for every thread.
__device__ inline double sum_of_block(double x) {
  __shared__ double sums[choice_threads / 32];
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  double total = 0.0;
  for (int w = 0; w < choice_threads / 32; ++w) total += sums[w];
  return total;
}

/// Floats as integers of the same order.
__device__ inline std::uint32_t ordered(float x) {
  const std::uint32_t bits = __float_as_uint(x);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

/// A row of logits with all that becomes of them.
struct LogitRow {
  const float* logits;
  const ChoiceLogits& all;

  __device__ float operator()(std::int64_t id) const {
    float logit = logits[id];
    if (all.bias != nullptr) logit += element(all.bias, all.bias_dtype, id);
    return all.soft_cap != 0.0f ? soft_capped(logit, all.soft_cap) : logit;
  }
};

/// The nucleus: tokens whose logit is above `limit` in the order of ordered(), and those equal to it up to
/// `last` by their ids.
struct Nucleus {
  std::uint32_t limit = 0;
  std::int64_t last = 0;

  __device__ bool has(float logit, std::int64_t id) const {
    const std::uint32_t at = ordered(logit);
    return at > limit || (at == limit && id <= last);
  }
};

/// By bisection over the order of floats, then over the ids of equal ones.
__device__ inline Nucleus nucleus_of(const LogitRow& row, std::int64_t vocabulary, float largest,
                                     const Sampling& sampling) {
  const auto weight = [&](float logit) {
    return exp((static_cast<double>(logit) - static_cast<double>(largest)) /
               static_cast<double>(sampling.temperature));
  };
  /// The weights of all tokens that `takes` takes.
  const auto sum_over = [&](auto takes) {
    double sum = 0.0;
    for (std::int64_t id = threadIdx.x; id < vocabulary; id += choice_threads) {
      const float logit = row(id);
      if (takes(logit, id)) sum += weight(logit);
    }
    return sum_of_block(sum);
  };
  const double enough =
      static_cast<double>(sampling.top_p) * sum_over([](float, std::int64_t) { return true; });
  // The least limit such that the tokens above it do not yet suffice.
  std::uint32_t low = 0, high = ordered(largest);
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    const double above = sum_over([&](float logit, std::int64_t) { return ordered(logit) > middle; });
    if (above < enough) high = middle;
    else low = middle + 1;
  }
  const double above = sum_over([&](float logit, std::int64_t) { return ordered(logit) > low; });
  std::int64_t first = 0, last = vocabulary - 1;
  while (first < last) {
    const std::int64_t middle = first + (last - first) / 2;
    const double equal =
        sum_over([&](float logit, std::int64_t id) { return ordered(logit) == low && id <= middle; });
    if (above + equal >= enough && equal > 0.0) last = middle;
    else first = middle + 1;
  }
  return {low, last};
}

__global__ void __launch_bounds__(choice_threads)
    choose_targets(ChoiceLogits all, Choices choices, Sampling sampling, std::uint32_t sharing,
                   std::int64_t first_copy, std::int32_t* out, std::int64_t out_stride,
                   std::uint32_t* fault) {
  const std::int64_t j = blockIdx.x;
  const std::int64_t copy = first_copy + blockIdx.y;
  const std::int64_t read = choices.rows[j];
  if (read < 0 || read >= all.rows) return report(fault, Fault::target);
  const std::int64_t at = copy * all.copy_rows + read - all.first;
  if (at < 0 || at >= all.count) return;
  const LogitRow row{all.data + at * all.stride, all};

  Candidate greedy{-INFINITY, -1};
  bool broken = false;
  for (std::int64_t id = threadIdx.x; id < all.vocabulary; id += choice_threads) {
    const float logit = row(id);
    broken = broken || isnan(logit);
    if (logit > -INFINITY) greedy.take(logit, static_cast<std::int32_t>(id));
  }
  broken = __syncthreads_or(broken) != 0;
  greedy = best_of_block(greedy);
  // Copies that share their logits may have draws of their own.
  for (std::uint32_t i = 0; i < sharing; ++i) {
    Candidate best = greedy;
    if (sampling.temperature != 0.0f && !broken && greedy.id >= 0) {
      const float inverse = 1.0f / sampling.temperature;
      const std::int32_t* const words = choices.keys + (copy + i) * choices.key_stride + 2 * j;
      const std::uint64_t key =
          static_cast<std::uint32_t>(words[0]) | std::uint64_t{static_cast<std::uint32_t>(words[1])} << 32;
      const auto place = static_cast<std::uint32_t>(choices.places[(copy + i) * choices.place_stride + j]);
      Nucleus nucleus{0, all.vocabulary};
      if (sampling.top_p < 1.0f) nucleus = nucleus_of(row, all.vocabulary, greedy.score, sampling);
      best = {-INFINITY, -1};
      for (std::int64_t id = threadIdx.x; id < all.vocabulary; id += choice_threads) {
        const float logit = row(id);
        if (!(logit > -INFINITY) || !nucleus.has(logit, id)) continue;
        best.take(draw_score(logit, inverse, gumbel_at(key, place, static_cast<std::uint32_t>(id))),
                  static_cast<std::int32_t>(id));
      }
      best = best_of_block(best);
    }
    if (threadIdx.x == 0) out[(copy + i) * out_stride + j] = broken ? -1 : best.id;
  }
}

}  // namespace

cudaError_t scatter(Matrices from, const std::int32_t* index, std::int64_t rows, std::int64_t cols,
                    std::int64_t copies, Matrices to, std::int64_t to_rows, std::uint32_t* fault,
                    cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (from.dtype != to.dtype) return cudaErrorInvalidValue;
  const bool eights = cols % 8 == 0 && in_eights(from) && in_eights(to);
  return by_type(from.dtype, [&]<typename T>(T) {
    scatter_rows<T><<<dim3(blocks(rows, 1), blocks(copies, 1)), 128, 0, stream>>>(
        typed<const T>(from), index, eights, cols, typed<T>(to), to_rows, fault);
    return cudaGetLastError();
  });
}

cudaError_t decode_attend(const Decoding& a, std::int64_t copies, std::uint32_t* fault, cudaStream_t stream) {
  if (a.rows == 0) return cudaSuccess;
  if (a.head_dim > 256) return cudaErrorInvalidValue;
  return by_type(a.q.dtype, [&]<typename T>(T) {
    if (a.head_dim <= 64) return launch_decode<T, 8>(a, copies, fault, stream);
    if (a.head_dim <= 128) return launch_decode<T, 16>(a, copies, fault, stream);
    return launch_decode<T, 32>(a, copies, fault, stream);
  });
}

cudaError_t choose_tokens(const ChoiceLogits& logits, const Choices& choices, const Sampling& sampling,
                          std::int64_t copies, std::int32_t* out, std::int64_t out_stride,
                          std::uint32_t* fault, cudaStream_t stream) {
  if (choices.count == 0 || logits.count == 0) return cudaSuccess;
  std::int64_t first_copy = 0;  // the copies that these rows touch
  std::int64_t touched = 1;
  if (logits.copy_rows > 0) {
    first_copy = logits.first / logits.copy_rows;
    touched = (logits.first + logits.count - 1) / logits.copy_rows - first_copy + 1;
  }
  choose_targets<<<dim3(blocks(choices.count, 1), blocks(touched, 1)), choice_threads, 0, stream>>>(
      logits, choices, sampling, logits.copy_rows > 0 ? 1u : static_cast<std::uint32_t>(copies), first_copy,
      out, out_stride, fault);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
