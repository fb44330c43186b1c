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

// ---- attention. A key head and the query heads that read it, up to `heads` of them, are served by `warps`
// warps of a block; where these are not all four, a block has several key heads. A key's eights of columns
// lie one a lane, so that 32 / lanes keys share a warp; such a team has every teams-th stretch of keys, with
// an online softmax of its own (Milakov and Gimelshein 2018), and the teams are added up in order at the end.
// What a query gets so depends on the number of its keys alone.
//
// A row has few keys, so that most of the time goes by before the first of them is there: they are asked for
// before anything else, and the row's own key and value, which are not in memory yet, come from this block.
//
// The scores of a stretch, one for each key and head, are sums over the lanes. Each exchange between lanes
// halves what a lane still sums: in the end it holds one score (or few), of which it alone takes the
// exponential. Heads are the high bits of a score's number, keys the low ones.
constexpr int decode_threads = 128;

/// Keys of a stretch.
template <int heads>
inline constexpr int stretch_of = heads == 1 ? 8 : 4;

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

/// Where the columns of a head come from, and what they are turned with.
template <typename T>
struct HeadRow {
  const T* from;
  const float* cosines;
  const float* sines;
};

/// Unit `unit` of a head into shared memory, turned and rounded as heads are in memory: a pair of columns
/// that turn together, or a column behind them. There are head_dim - dims / 2 units.
template <typename T>
__device__ inline void load_unit(float* to, const HeadRow<T>& head, const Rotation& r, int unit) {
  const int half = static_cast<int>(r.dims) / 2;
  if (unit >= half) {
    to[unit + half] = to_float(head.from[unit + half]);
    return;
  }
  const int i = r.half_split ? unit : 2 * unit;
  const int j = r.half_split ? unit + half : 2 * unit + 1;
  float first = to_float(head.from[i]);
  float second = to_float(head.from[j]);
  rotate_pair(first, second, head.cosines[unit], head.sines[unit]);
  to[i] = to_float(from_float<T>(first));
  to[j] = to_float(from_float<T>(second));
}

template <typename T, int lanes, int heads, int warps>
__global__ void __launch_bounds__(decode_threads, 4)
    decode_rows(Decoding a, DecodeOperands<T> x, bool whole, std::uint32_t* fault) {
  constexpr int threads = 32 * warps;                  // of a key head
  constexpr int key_heads = decode_threads / threads;  // of a block
  constexpr int teams = threads / lanes;
  constexpr int stretch = stretch_of<heads>;
  constexpr int scores = heads * stretch;                     // of a stretch
  constexpr int parts = scores > lanes ? scores / lanes : 1;  // of these a lane's, in turns
  constexpr int of_part = scores / parts;
  constexpr int padded = 8 * lanes;  // columns of a head that teams go through
  constexpr int floats = (heads + 2) * padded + teams * heads * padded + 2 * teams * heads;
  extern __shared__ float shared[];
  const int head_dim = static_cast<int>(a.head_dim);
  const int thread = static_cast<int>(threadIdx.x) % threads;
  const int slot = static_cast<int>(threadIdx.x) / threads;
  float* const query = shared + slot * floats;       // [heads + 2][padded]: queries, the row's key, its value
  float* const sums = query + (heads + 2) * padded;  // [teams][heads][padded]
  float* const tops = sums + teams * heads * padded;  // [teams][heads] largest, then totals
  float* const own_k = query + heads * padded;
  float* const own_v = own_k + padded;

  const std::int64_t row = blockIdx.x;
  const std::int64_t copy = blockIdx.z;
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int turns_a_key = (group + heads - 1) / heads;  // of key heads that more queries read
  const int all_work = static_cast<int>(a.kv_heads) * turns_a_key;
  const int work = static_cast<int>(blockIdx.y) * key_heads + slot;
  const bool works = work < all_work;  // the others do the last one's, and store nothing
  const int mine = works ? work : all_work - 1;
  const int kv_head = mine / turns_a_key;
  const int first_head = kv_head * group + mine % turns_a_key * heads;
  const int count = min(heads, (kv_head + 1) * group - first_head);

  const std::int64_t place = copy * a.index_stride + row;
  const int own = a.cache_rows[place];
  const int prompt_begin = a.prompt_begins[place];
  const int prompt_length = a.prompt_lengths[place];
  const std::int64_t position = a.positions[place];
  T* const out = x.out.row(copy, row) + first_head * head_dim;
  if (own < 0) {
    for (int d = thread; d < count * head_dim; d += threads) out[d] = from_float<T>(0.0f);
    return;
  }
  const int own_begin = static_cast<int>(row * a.slot_rows);
  const int last = prompt_length + own;  // the row's own key
  const int first = a.window > 0 ? max(last + 1 - static_cast<int>(a.window), 0) : 0;
  if (own >= a.slot_rows || own_begin + own >= a.own_rows || prompt_begin < 0 || prompt_length < 0 ||
      prompt_begin + prompt_length > a.prompt_rows)
    return report(fault, Fault::row);
  if (a.rotation.dims > 0 && (position < 0 || position >= a.rotation.places))
    return report(fault, Fault::position);

  const int team = thread / lanes;
  const int lane = thread % lanes;
  const int width = head_dim - 8 * lane;  // columns that are there from this lane's first on
  const std::int64_t column = std::int64_t{kv_head} * head_dim;
  Eight<T> key[stretch], value[stretch];
  // Key j of the prompt is at j rows from here, and one of the slot likewise.
  const std::int64_t at = column + 8 * lane;
  const T* const prompt_k = x.prompt_k.row(copy, prompt_begin) + at;
  const T* const prompt_v = x.prompt_v.row(copy, prompt_begin) + at;
  const T* const slot_k = x.own_k.row(copy, own_begin - prompt_length) + at;
  const T* const slot_v = x.own_v.row(copy, own_begin - prompt_length) + at;
  const int prompt_stride = static_cast<int>(x.prompt_k.row_stride);
  const int slot_stride = static_cast<int>(x.own_k.row_stride);
  /// Asks for the keys from `key0` on; the row's own are in shared memory.
  const auto load_stretch = [&](int key0) {
#pragma unroll
    for (int s = 0; s < stretch; ++s) {
      const int j = key0 + s;
      if (j >= last || width <= 0) {
        key[s].clear();
        value[s].clear();
        continue;
      }
      const bool prompt = j < prompt_length;
      const std::int64_t away = std::int64_t{j} * (prompt ? prompt_stride : slot_stride);
      key[s].load((prompt ? prompt_k : slot_k) + away, width, whole);
      value[s].load((prompt ? prompt_v : slot_v) + away, width, whole);
    }
  };
  load_stretch(first + team * stretch);

  // Queries that are not there repeat the last one. As many heads at once as there are threads for.
  const int units = head_dim - static_cast<int>(a.rotation.dims) / 2;
  const int across = max(threads / units, 1);
  const int first_unit = across > 1 ? thread % units : thread;
  const int first_loaded = across > 1 ? thread / units : 0;
  const float* const cosines = a.rotation.cosines + position * a.rotation.table_stride;
  const float* const sines = a.rotation.sines + position * a.rotation.table_stride;
  for (int h = first_loaded; h <= heads && first_loaded < across; h += across) {
    const T* const from = h == heads ? x.k.row(copy, row) + column
                                     : x.q.row(copy, row) + (first_head + min(h, count - 1)) * head_dim;
    for (int unit = first_unit; unit < units; unit += threads)
      load_unit<T>(query + h * padded, {from, cosines, sines}, a.rotation, unit);
  }
  for (int d = thread; d < padded; d += threads) {
    own_v[d] = d < head_dim ? to_float(x.v.row(copy, row)[column + d]) : 0.0f;
    if (d < head_dim) continue;
    for (int h = 0; h <= heads; ++h) query[h * padded + d] = 0.0f;
  }
  __syncthreads();
  if (works) {  // (Where a key head has several turns, all store the same.)
    for (int d = thread; d < head_dim; d += threads) {
      x.own_k.row(copy, own_begin + own)[column + d] = from_float<T>(own_k[d]);
      x.own_v.row(copy, own_begin + own)[column + d] = from_float<T>(own_v[d]);
    }
  }

  // Of this lane's score in each part: its head's largest so far, and its own share of the total.
  float largest[parts], total[parts], sum[heads][8];
#pragma unroll
  for (int p = 0; p < parts; ++p) {
    largest[p] = -INFINITY;
    total[p] = 0.0f;
  }
#pragma unroll
  for (int h = 0; h < heads; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[h][i] = 0.0f;
  }
  const int stretches = (last - first) / stretch + 1;
  // Every team takes part in every turn: lanes exchange across the whole warp.
  for (int turn = 0; turn * teams < stretches; ++turn) {
    const int key0 = first + (turn * teams + team) * stretch;
    if (turn > 0) load_stretch(key0);
    float score[scores];  // number h * stretch + s
#pragma unroll
    for (int s = 0; s < stretch; ++s) {
      float k[8];
      key[s].to_floats(k);
      if (key0 + s == last) {
#pragma unroll
        for (int i = 0; i < 8; ++i) k[i] = own_k[8 * lane + i];
      }
#pragma unroll
      for (int h = 0; h < heads; ++h) {
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
      float seen = scattered_sum<lanes>(part) * a.scale;
      if (a.soft_cap != 0.0f) seen = soft_capped(seen, a.soft_cap);
      if (key0 + lane % stretch > last) seen = -INFINITY;
      float now = seen;
#pragma unroll
      for (int step = 1; step < stretch; step *= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, step));
      now = fmaxf(now, largest[p]);
      const float less = now == -INFINITY ? 0.0f : now;  // the team has seen no key yet
      shrink[p] = expf(largest[p] - less);
      weight[p] = expf(seen - less);
      total[p] = fmaf(total[p], shrink[p], weight[p]);
      largest[p] = now;
    }
    bool shrinks = false;
#pragma unroll
    for (int p = 0; p < parts; ++p) shrinks = shrinks || shrink[p] != 1.0f;
    const int team_begin = static_cast<int>(threadIdx.x) % 32 / lanes * lanes;
    if (__any_sync(0xffffffffu, shrinks)) {
#pragma unroll
      for (int h = 0; h < heads; ++h) {
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
      if (key0 + s == last) {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = own_v[8 * lane + i];
      }
#pragma unroll
      for (int h = 0; h < heads; ++h) {
        const int number = h * stretch + s;
        const float w = __shfl_sync(0xffffffffu, weight[number / of_part], team_begin + number % of_part);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[h][i] = fmaf(w, v[i], sum[h][i]);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < heads; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[(team * heads + h) * padded + 8 * lane + i] = sum[h][i];
  }
#pragma unroll
  for (int p = 0; p < parts; ++p) {
    float whole_total = total[p];
#pragma unroll
    for (int step = 1; step < stretch; step *= 2)
      whole_total += __shfl_xor_sync(0xffffffffu, whole_total, step);
    if (lane < of_part && lane % stretch == 0) {
      const int h = (p * of_part + lane) / stretch;
      tops[team * heads + h] = largest[p];
      tops[(teams + team) * heads + h] = whole_total;
    }
  }
  __syncthreads();
  // Each team's share of the result in place of its largest score.
  for (int h = thread; h < heads; h += threads) {
    float top = -INFINITY;
    for (int t = 0; t < teams; ++t) top = fmaxf(top, tops[t * heads + h]);
    float divisor = 0.0f;
    for (int t = 0; t < teams; ++t) {
      const float own_top = tops[t * heads + h];
      const float share = own_top == -INFINITY ? 0.0f : expf(own_top - top);
      tops[t * heads + h] = share;
      divisor = fmaf(share, tops[(teams + t) * heads + h], divisor);
    }
    for (int t = 0; t < teams; ++t) tops[t * heads + h] /= divisor;
  }
  __syncthreads();
  if (!works) return;
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    if (h >= count) break;
    for (int d = thread; d < head_dim; d += threads) {
      float result = 0.0f;
#pragma unroll
      for (int t = 0; t < teams; ++t)
        result = fmaf(tops[t * heads + h], sums[(t * heads + h) * padded + d], result);
      out[h * head_dim + d] = from_float<T>(result);
    }
  }
}

template <typename T, int lanes, int heads, int warps>
cudaError_t launch_decode(const Decoding& a, std::int64_t copies, std::uint32_t* fault, cudaStream_t stream) {
  constexpr int key_heads = decode_threads / (32 * warps);
  constexpr int teams = 32 * warps / lanes;
  constexpr std::size_t floats =
      key_heads * ((heads + 2) * 8 * lanes + teams * heads * 8 * lanes + 2 * teams * heads);
  const auto kernel = decode_rows<T, lanes, heads, warps>;
  const std::size_t bytes = floats * sizeof(float);
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status != cudaSuccess) return status;
  const std::int64_t turns_a_key = (a.heads / a.kv_heads + heads - 1) / heads;
  const auto all = {a.prompt_k, a.prompt_v, a.own_k, a.own_v};
  const bool whole = a.head_dim % 8 == 0 &&
                     std::all_of(all.begin(), all.end(), [](const Matrices& m) { return in_eights(m); });
  const DecodeOperands<T> operands = {
      typed<const T>(a.q),        typed<const T>(a.k), typed<const T>(a.v), typed<const T>(a.prompt_k),
      typed<const T>(a.prompt_v), typed<T>(a.own_k),   typed<T>(a.own_v),   typed<T>(a.out)};
  const dim3 grid(blocks(a.rows, 1), blocks(a.kv_heads * turns_a_key, key_heads), blocks(copies, 1));
  kernel<<<grid, decode_threads, bytes, stream>>>(a, operands, whole, fault);
  return cudaGetLastError();
}

template <typename T, int lanes>
cudaError_t launch_decode(const Decoding& a, std::int64_t copies, std::uint32_t* fault, cudaStream_t stream) {
  if (a.heads == a.kv_heads) return launch_decode<T, lanes, 1, 1>(a, copies, fault, stream);
  return launch_decode<T, lanes, 4, 4>(a, copies, fault, stream);
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
  const Logits& all;

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
    choose_targets(Logits all, Choices choices, Sampling sampling, std::uint32_t sharing,
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

cudaError_t choose_tokens(const Logits& logits, const Choices& choices, const Sampling& sampling,
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
