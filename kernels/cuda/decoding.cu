#include "kernels/cuda/decoding.h"

#include <cstring>

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
// key's eights of columns lie one a lane, so that 32 / lanes keys share a warp; such a team has every
// teams-th stretch of keys, with an online softmax of its own (Milakov and Gimelshein 2018), and the teams
// are added up in order at the end. What a query gets so depends on the number of its keys alone.
//
// The scores of a stretch, one for each key and head, are sums over the lanes. Each exchange between lanes
// halves what a lane still sums: in the end it holds one score (or few), of which it alone takes the
// exponential. Heads are the high bits of a score's number, keys the low ones.
constexpr int decode_threads = 128;

/// Keys of a stretch.
template <int heads_a_block>
inline constexpr int stretch_of = heads_a_block == 1 ? 8 : 4;

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

/// Eight columns as they lie in memory.
template <typename T>
struct Eight {
  uint4 words[sizeof(T) / 2];

  __device__ void clear() {
    for (uint4& word : words) word = make_uint4(0, 0, 0, 0);
  }
  /// Columns from `from` on, of which only those before `width` are there; all at once where `whole`.
  __device__ void load(const T* from, int width, bool whole) {
    if (whole) {
      for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i)
        words[i] = reinterpret_cast<const uint4*>(from)[i];
      return;
    }
    T values[8];
    for (int i = 0; i < 8; ++i) values[i] = i < width ? from[i] : from_float<T>(0.0f);
    memcpy(words, values, sizeof(words));
  }
  __device__ void to_floats(float* to) const { load8(reinterpret_cast<const T*>(words), to); }
};

/// Sums over `lanes` lanes of `count` values each (a power of two, at most `lanes`): lane l gets that of
/// value number l % count.
template <int lanes, int count, int all = count>
__device__ inline float scattered_sum(const float (&value)[count]) {
  if constexpr (count == 1) {
    float sum = value[0];
#pragma unroll
    for (int step = all; step < lanes; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    return sum;
  } else {
    constexpr int half = count / 2;
    const bool upper = (threadIdx.x & half) != 0;
    float halved[half];
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float given = upper ? value[i] : value[i + half];
      halved[i] = (upper ? value[i + half] : value[i]) + __shfl_xor_sync(0xffffffffu, given, half);
    }
    return scattered_sum<lanes, half, all>(halved);
  }
}

template <typename T, int lanes, int heads_a_block>
__global__ void __launch_bounds__(decode_threads, 4)
    decode_rows(Decoding a, DecodeOperands<T> x, bool whole, std::uint32_t* fault) {
  constexpr int teams = decode_threads / lanes;
  constexpr int stretch = stretch_of<heads_a_block>;
  constexpr int scores = heads_a_block * stretch;             // of a stretch
  constexpr int parts = scores > lanes ? scores / lanes : 1;  // of these a lane's, in turns
  constexpr int of_part = scores / parts;
  extern __shared__ float shared[];
  const int head_dim = static_cast<int>(a.head_dim);
  constexpr int padded = 8 * lanes;                           // columns of a head that teams go through
  float* const query = shared;                                // [heads_a_block + 1][padded], the key behind
  float* const sums = query + (heads_a_block + 1) * padded;   // [teams][heads_a_block][padded]
  float* const tops = sums + teams * heads_a_block * padded;  // [teams][heads_a_block] largest, then totals

  const std::int64_t row = blockIdx.x;
  const std::int64_t copy = blockIdx.z;
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int blocks_a_key = (group + heads_a_block - 1) / heads_a_block;
  const int kv_head = static_cast<int>(blockIdx.y) / blocks_a_key;
  const int first_head = kv_head * group + static_cast<int>(blockIdx.y) % blocks_a_key * heads_a_block;
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

  // Queries and the row's own key, turned and rounded as they are in memory. Those that are not there repeat
  // the last one.
  const std::int64_t column = std::int64_t{kv_head} * head_dim;
  for (int e = static_cast<int>(threadIdx.x); e < (heads_a_block + 1) * padded; e += decode_threads) {
    const int h = e / padded;
    const int d = e % padded;
    float value = 0.0f;
    if (d < head_dim) {
      const T* const from = h == heads_a_block
                                ? x.k.row(copy, row) + column
                                : x.q.row(copy, row) + (first_head + min(h, count - 1)) * head_dim;
      value = to_float(from[d]);
    }
    query[e] = value;
  }
  __syncthreads();
  const int half = static_cast<int>(a.rotation.dims) / 2;
  for (int e = static_cast<int>(threadIdx.x); e < (heads_a_block + 1) * half; e += decode_threads) {
    const int j = e % half;
    float* const head = query + e / half * padded;
    float& first = head[a.rotation.half_split ? j : 2 * j];
    float& second = head[a.rotation.half_split ? j + half : 2 * j + 1];
    rotate_pair(first, second, a.rotation.cosines[position * a.rotation.table_stride + j],
                a.rotation.sines[position * a.rotation.table_stride + j]);
    first = to_float(from_float<T>(first));
    second = to_float(from_float<T>(second));
  }
  __syncthreads();
  // To the cache, from where this block reads them as all others. (Blocks of one key head write the same.)
  T* const own_key = x.own_k.row(copy, seen.own_begin + own) + column;
  T* const own_value = x.own_v.row(copy, seen.own_begin + own) + column;
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += decode_threads) {
    own_key[d] = from_float<T>(query[heads_a_block * padded + d]);
    own_value[d] = x.v.row(copy, row)[column + d];
  }
  __syncthreads();

  const int team = static_cast<int>(threadIdx.x) / lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int width = head_dim - 8 * lane;  // columns that are there from this lane's first on
  // Of this lane's score in each part: its head's largest so far, and its own share of the total.
  float largest[parts], total[parts], sum[heads_a_block][8];
#pragma unroll
  for (int p = 0; p < parts; ++p) {
    largest[p] = -INFINITY;
    total[p] = 0.0f;
  }
#pragma unroll
  for (int h = 0; h < heads_a_block; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[h][i] = 0.0f;
  }
  const int stretches = (seen.length - seen.first + stretch - 1) / stretch;
  // Every team takes part in every turn: lanes exchange across the whole warp.
  for (int turn = 0; turn * teams < stretches; ++turn) {
    const int key0 = seen.first + (turn * teams + team) * stretch;
    Eight<T> key[stretch], value[stretch];
#pragma unroll
    for (int s = 0; s < stretch; ++s) {
      const int j = key0 + s;
      if (j >= seen.length || width <= 0) {
        key[s].clear();
        value[s].clear();
        continue;
      }
      const bool prompt = j < seen.prompt_length;
      const std::int64_t at = prompt ? seen.prompt_begin + j : seen.own_begin + j - seen.prompt_length;
      const std::int64_t from = column + 8 * lane;
      key[s].load((prompt ? x.prompt_k.row(copy, at) : x.own_k.row(copy, at)) + from, width, whole);
      value[s].load((prompt ? x.prompt_v.row(copy, at) : x.own_v.row(copy, at)) + from, width, whole);
    }
    float score[scores];  // number h * stretch + s
#pragma unroll
    for (int s = 0; s < stretch; ++s) {
      float k[8];
      key[s].to_floats(k);
#pragma unroll
      for (int h = 0; h < heads_a_block; ++h) {
        const float* const q = query + h * padded + 8 * lane;
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) dot = fmaf(q[i], k[i], dot);
        score[h * stretch + s] = dot;
      }
    }
    float weight[parts], shrink[parts];
#pragma unroll
    for (int p = 0; p < parts; ++p) {
      float part[of_part];
#pragma unroll
      for (int i = 0; i < of_part; ++i) part[i] = score[p * of_part + i];
      float mine = scattered_sum<lanes>(part) * a.scale;
      if (a.soft_cap != 0.0f) mine = soft_capped(mine, a.soft_cap);
      if (key0 + lane % stretch >= seen.length) mine = -INFINITY;
      float now = mine;
#pragma unroll
      for (int step = 1; step < stretch; step *= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, step));
      now = fmaxf(now, largest[p]);
      const float less = now == -INFINITY ? 0.0f : now;  // the team has seen no key yet
      shrink[p] = expf(largest[p] - less);
      weight[p] = expf(mine - less);
      total[p] = fmaf(total[p], shrink[p], weight[p]);
      largest[p] = now;
    }
    bool shrinks = false;
#pragma unroll
    for (int p = 0; p < parts; ++p) shrinks = shrinks || shrink[p] != 1.0f;
    const int team_begin = static_cast<int>(threadIdx.x) % 32 / lanes * lanes;
    if (__any_sync(0xffffffffu, shrinks)) {
#pragma unroll
      for (int h = 0; h < heads_a_block; ++h) {
        const float factor =
            __shfl_sync(0xffffffffu, shrink[h * stretch / of_part], team_begin + h * stretch % of_part);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[h][i] *= factor;
      }
    }
#pragma unroll
    for (int s = 0; s < stretch; ++s) {
      float v[8];
      value[s].to_floats(v);
#pragma unroll
      for (int h = 0; h < heads_a_block; ++h) {
        const int number = h * stretch + s;
        const float w = __shfl_sync(0xffffffffu, weight[number / of_part], team_begin + number % of_part);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[h][i] = fmaf(w, v[i], sum[h][i]);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < heads_a_block; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[(team * heads_a_block + h) * padded + 8 * lane + i] = sum[h][i];
  }
#pragma unroll
  for (int p = 0; p < parts; ++p) {
    float whole_total = total[p];
#pragma unroll
    for (int step = 1; step < stretch; step *= 2)
      whole_total += __shfl_xor_sync(0xffffffffu, whole_total, step);
    if (lane < of_part && lane % stretch == 0) {
      const int h = (p * of_part + lane) / stretch;
      tops[team * heads_a_block + h] = largest[p];
      tops[(teams + team) * heads_a_block + h] = whole_total;
    }
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < count * head_dim; e += decode_threads) {
    const int h = e / head_dim;
    const int d = e % head_dim;
    float top = -INFINITY;
    for (int t = 0; t < teams; ++t) top = fmaxf(top, tops[t * heads_a_block + h]);
    float divisor = 0.0f;
    float result = 0.0f;
    for (int t = 0; t < teams; ++t) {
      const float own_top = tops[t * heads_a_block + h];
      const float share = own_top == -INFINITY ? 0.0f : expf(own_top - top);
      divisor = fmaf(share, tops[(teams + t) * heads_a_block + h], divisor);
      result = fmaf(share, sums[(t * heads_a_block + h) * padded + d], result);
    }
    out[e] = from_float<T>(result / divisor);
  }
}

template <typename T, int lanes, int heads_a_block>
cudaError_t launch_decode(const Decoding& a, std::int64_t copies, std::uint32_t* fault, cudaStream_t stream) {
  constexpr int teams = decode_threads / lanes;
  constexpr std::size_t floats =
      (heads_a_block + 1) * 8 * lanes + teams * heads_a_block * 8 * lanes + 2 * teams * heads_a_block;
  const auto kernel = decode_rows<T, lanes, heads_a_block>;
  const std::size_t bytes = floats * sizeof(float);
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status != cudaSuccess) return status;
  const std::int64_t group = a.heads / a.kv_heads;
  const std::int64_t blocks_a_key = (group + heads_a_block - 1) / heads_a_block;
  const auto all = {a.prompt_k, a.prompt_v, a.own_k, a.own_v};
  const bool whole = a.head_dim % 8 == 0 &&
                     std::all_of(all.begin(), all.end(), [](const Matrices& m) { return in_eights(m); });
  const DecodeOperands<T> operands = {
      typed<const T>(a.q),        typed<const T>(a.k), typed<const T>(a.v), typed<const T>(a.prompt_k),
      typed<const T>(a.prompt_v), typed<T>(a.own_k),   typed<T>(a.own_v),   typed<T>(a.out)};
  kernel<<<dim3(blocks(a.rows, 1), blocks(a.kv_heads * blocks_a_key, 1), blocks(copies, 1)), decode_threads,
           bytes, stream>>>(a, operands, whole, fault);
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
