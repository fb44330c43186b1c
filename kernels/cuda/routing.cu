#include "kernels/cuda/routing.h"

#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

constexpr unsigned all_lanes = 0xffffffffu;

// ---- the choice: a warp a row

constexpr int choose_warps = 8;

struct Candidate {
  float logit;  ///< NaN as -inf
  int expert;

  /// Stands before the other: greater, or of equal ones the lower expert.
  __device__ bool before(const Candidate& other) const {
    return logit > other.logit || (logit == other.logit && expert < other.expert);
  }
};

/// Experts lane, lane + 32, ... are a lane's: at most `most`.
template <int most>
__global__ void __launch_bounds__(32 * choose_warps)
    choose_rows(Typed<const float> logits, std::int64_t rows, int experts, int chosen, bool renormalised,
                float* weights, std::int32_t* ids) {
  const std::int64_t row = std::int64_t{blockIdx.x} * choose_warps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= rows) return;
  const float* const from = logits.row(blockIdx.y, row);
  Candidate own[most];
#pragma unroll
  for (int i = 0; i < most; ++i) {
    const int e = 32 * i + lane;
    const float logit = e < experts ? from[e] : 0.0f;
    own[i] = {logit != logit ? -INFINITY : logit, e};
  }
  Candidate last = {INFINITY, -1};
  Candidate mine = {0.0f, experts};  // lane j: the j-th choice
  for (int j = 0; j < chosen; ++j) {
    Candidate best = {-INFINITY, experts};
#pragma unroll
    for (int i = 0; i < most; ++i) {
      if (own[i].expert < experts && last.before(own[i]) && own[i].before(best)) best = own[i];
    }
    for (int step = 16; step > 0; step /= 2) {
      const Candidate other = {__shfl_xor_sync(all_lanes, best.logit, step),
                               __shfl_xor_sync(all_lanes, best.expert, step)};
      if (other.before(best)) best = other;
    }
    last = best;
    if (lane == j) mine = best;
  }
  int place = 0;  // among the chosen, by expert
  for (int j = 0; j < chosen; ++j) place += __shfl_sync(all_lanes, mine.expert, j) < mine.expert ? 1 : 0;
  const float largest = __shfl_sync(all_lanes, mine.logit, 0);
  const float logit = lane < chosen ? from[mine.expert] : -INFINITY;
  float sum = 0.0f;
  if (renormalised) {
    sum = lane < chosen ? expf(logit - largest) : 0.0f;
  } else {
    for (int e = lane; e < experts; e += 32) sum += expf(from[e] - largest);
  }
  sum = warp_sum(sum);
  if (lane >= chosen) return;
  const std::int64_t to = (blockIdx.y * rows + row) * chosen + place;
  weights[to] = expf(logit - largest) / sum;
  ids[to] = mine.expert;
}

// ---- places, by counting: a block a copy

constexpr int place_warps = 32;

/// begins[copy][expert] = how many of the copy's places are the expert's.
__global__ void __launch_bounds__(32 * place_warps)
    count_places(const std::int32_t* ids, std::int64_t places, int experts, std::int32_t* begins) {
  extern __shared__ std::int32_t count[];
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += 32 * place_warps) count[e] = 0;
  __syncthreads();
  const std::int32_t* const own = ids + blockIdx.x * places;
  for (std::int64_t i = threadIdx.x; i < places; i += 32 * place_warps) atomicAdd(count + own[i], 1);
  __syncthreads();
  std::int32_t* const to = begins + blockIdx.x * std::int64_t{experts + 1};
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += 32 * place_warps) to[e] = count[e];
}

/// Counts to first places, through experts and the copies of each.
__global__ void __launch_bounds__(32 * place_warps)
    sum_places(std::int32_t copies, std::int32_t experts, std::int32_t* begins) {
  __shared__ std::int32_t sums[place_warps];
  const std::int32_t all = experts * copies;
  const std::int32_t a_thread = (all + 32 * place_warps - 1) / (32 * place_warps);
  const std::int32_t first = static_cast<std::int32_t>(threadIdx.x) * a_thread;
  const auto at = [&](std::int32_t i) -> std::int32_t& {
    return begins[std::int64_t{i % copies} * (experts + 1) + i / copies];
  };
  std::int32_t own = 0;
  for (std::int32_t i = first; i < min(first + a_thread, all); ++i) own += at(i);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  std::int32_t before = own;  // of this warp's threads, up to this one
  for (int step = 1; step < 32; step *= 2) {
    const std::int32_t other = __shfl_up_sync(all_lanes, before, step);
    if (lane >= step) before += other;
  }
  if (lane == 31) sums[warp] = before;
  __syncthreads();
  std::int32_t next = before - own;
  for (int w = 0; w < warp; ++w) next += sums[w];
  for (std::int32_t i = first; i < min(first + a_thread, all); ++i) {
    const std::int32_t count = at(i);
    at(i) = next;
    next += count;
  }
  std::int32_t total = 0;
  for (int w = 0; w < place_warps; ++w) total += sums[w];
  for (std::int32_t copy = static_cast<std::int32_t>(threadIdx.x); copy < copies; copy += 32 * place_warps)
    begins[std::int64_t{copy} * (experts + 1) + experts] = total;
}

/// A warp has neighbouring choices: it counts those of each expert, begins where the warps before it end, and
/// takes places in the order of rows.
__global__ void __launch_bounds__(32 * place_warps)
    take_places(std::int32_t* ids, std::int64_t places, int experts, int chosen, const std::int32_t* begins,
                std::int32_t* rows_at) {
  extern __shared__ std::int32_t next[];  // [warps][experts]
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  std::int32_t* const own = ids + blockIdx.x * places;
  std::int32_t* const counter = next + warp * experts;
  const std::int64_t a_warp = (places + 32 * place_warps - 1) / (32 * place_warps) * 32;
  const std::int64_t first = warp * a_warp;
  const std::int64_t last = min(first + a_warp, places);
  for (int i = static_cast<int>(threadIdx.x); i < place_warps * experts; i += 32 * place_warps) next[i] = 0;
  __syncthreads();
  // `use` gets the choice and its place by this warp's counter; choices of one expert in the order of lanes.
  const auto each = [&](auto use) {
    for (std::int64_t i = first + lane; i - lane < last; i += 32) {
      const std::int32_t expert = i < last ? own[i] : -1;
      const unsigned same = __match_any_sync(all_lanes, expert);
      const int before = __popc(same & ((1u << lane) - 1));
      std::int32_t place = 0;
      if (expert >= 0) place = counter[expert] + before;
      __syncwarp();
      if (expert >= 0 && before == 0) counter[expert] += __popc(same);
      __syncwarp();
      if (expert >= 0) use(i, place);
    }
  };
  each([](std::int64_t, std::int32_t) {});
  __syncthreads();
  const std::int32_t* const begin = begins + blockIdx.x * std::int64_t{experts + 1};
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += 32 * place_warps) {
    std::int32_t place = begin[e];
    for (int w = 0; w < place_warps; ++w) {
      const std::int32_t count = next[w * experts + e];
      next[w * experts + e] = place;
      place += count;
    }
  }
  __syncthreads();
  each([&](std::int64_t i, std::int32_t place) {
    own[i] = place;
    rows_at[place] = static_cast<std::int32_t>((blockIdx.x * places + i) / chosen);
  });
}

// ---- rows

/// A row is read once for all of its places.
template <typename T>
__global__ void dispatch_rows(Typed<const T> x, std::int64_t a_copy, const std::int32_t* places, int chosen,
                              bool words, std::int64_t cols, Typed<T> out) {
  const T* const from = x.row(blockIdx.y, blockIdx.x);
  const std::int32_t* const own = places + blockIdx.y * a_copy + blockIdx.x * std::int64_t{chosen};
  const auto to = [&](int i) { return out.row(own[i] / a_copy, own[i] % a_copy); };
  if (words) {
    constexpr std::int64_t unit = 16 / sizeof(T);
    for (std::int64_t j = unit * threadIdx.x; j < cols; j += unit * blockDim.x) {
      const uint4 word = *reinterpret_cast<const uint4*>(from + j);
      for (int i = 0; i < chosen; ++i) *reinterpret_cast<uint4*>(to(i) + j) = word;
    }
    return;
  }
  for (std::int64_t j = threadIdx.x; j < cols; j += blockDim.x) {
    for (int i = 0; i < chosen; ++i) to(i)[j] = from[j];
  }
}

/// `a_copy`: places of a copy; 0: the copies share their routes, and each copy of x has all places. A thread
/// has `unit` columns.
template <typename T, int unit>
__global__ void combine_rows(Typed<const T> x, std::int64_t a_copy, const float* weights,
                             const std::int32_t* places, int chosen, std::int64_t cols, Typed<T> out) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t copy = blockIdx.y;
  const std::int64_t route = copy * a_copy + row * chosen;
  for (std::int64_t j = unit * threadIdx.x; j < cols; j += unit * blockDim.x) {
    float sum[unit] = {};
    for (int i = 0; i < chosen; ++i) {
      const std::int64_t place = places[route + i];
      const T* const from = (a_copy > 0 ? x.row(place / a_copy, place % a_copy) : x.row(copy, place)) + j;
      float value[unit];
      if constexpr (unit == 8) {
        load8(from, value);
      } else {
        value[0] = to_float(*from);
      }
      const float weight = weights[route + i];
#pragma unroll
      for (int e = 0; e < unit; ++e)
        sum[e] = i == 0 ? __fmul_rn(weight, value[e]) : fmaf(weight, value[e], sum[e]);
    }
    T* const to = out.row(copy, row) + j;
    if constexpr (unit == 8) {
      store8(to, sum);
    } else {
      *to = from_float<T>(sum[0]);
    }
  }
}

/// Threads for a row of that many units.
std::uint32_t threads_for(std::int64_t units) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>((units + 31) / 32 * 32, 32, 256));
}

bool fits(const Routes& r) {
  return r.experts > 0 && r.experts <= most_experts && r.chosen > 0 && r.chosen <= most_chosen &&
         r.chosen <= r.experts && r.all_places() < std::int64_t{1} << 31;
}

}  // namespace

cudaError_t choose_experts(Matrices logits, const Routes& r, bool renormalised, cudaStream_t stream) {
  if (!fits(r) || logits.dtype != DType::f32) return cudaErrorInvalidValue;
  if (r.rows == 0) return cudaSuccess;
  const auto kernel = r.experts <= 128 ? choose_rows<4> : choose_rows<most_experts / 32>;
  kernel<<<dim3(blocks(r.rows, choose_warps), blocks(r.copies, 1)), 32 * choose_warps, 0, stream>>>(
      typed<const float>(logits), r.rows, static_cast<int>(r.experts), static_cast<int>(r.chosen),
      renormalised, r.weights, r.places);
  return cudaGetLastError();
}

cudaError_t place_rows(const Routes& r, cudaStream_t stream) {
  if (!fits(r)) return cudaErrorInvalidValue;
  const auto experts = static_cast<int>(r.experts);
  const std::size_t a_count = static_cast<std::size_t>(r.experts) * sizeof(std::int32_t);
  const std::size_t bytes = place_warps * a_count;
  if (const cudaError_t status = cudaFuncSetAttribute(
          take_places, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
      status != cudaSuccess) {
    return status;
  }
  const std::uint32_t grid = blocks(r.copies, 1);
  count_places<<<grid, 32 * place_warps, a_count, stream>>>(r.places, r.places_a_copy(), experts, r.begins);
  sum_places<<<1, 32 * place_warps, 0, stream>>>(static_cast<std::int32_t>(r.copies), experts, r.begins);
  take_places<<<grid, 32 * place_warps, bytes, stream>>>(r.places, r.places_a_copy(), experts,
                                                         static_cast<int>(r.chosen), r.begins, r.rows_at);
  return cudaGetLastError();
}

cudaError_t dispatch(Matrices x, const Routes& r, std::int64_t cols, Matrices out, cudaStream_t stream) {
  if (r.all_places() == 0) return cudaSuccess;
  return by_type(x.dtype, [&]<typename T>(T) {
    const bool words = cols % 8 == 0 && in_eights(x) && in_eights(out);
    const auto units = words ? cols / static_cast<std::int64_t>(16 / sizeof(T)) : cols;
    dispatch_rows<T><<<dim3(blocks(r.rows, 1), blocks(r.copies, 1)), threads_for(units), 0, stream>>>(
        typed<const T>(x), r.places_a_copy(), r.places, static_cast<int>(r.chosen), words, cols,
        typed<T>(out));
    return cudaGetLastError();
  });
}

cudaError_t combine(Matrices x, const Routes& r, std::int64_t cols, std::int64_t copies, Matrices out,
                    cudaStream_t stream) {
  if (r.rows == 0) return cudaSuccess;
  const std::int64_t a_copy = r.copies > 1 ? r.places_a_copy() : 0;
  return by_type(x.dtype, [&]<typename T>(T) {
    const auto launch = [&]<int unit>(std::integral_constant<int, unit>) {
      combine_rows<T, unit>
          <<<dim3(blocks(r.rows, 1), blocks(copies, 1)), threads_for(cols / unit), 0, stream>>>(
              typed<const T>(x), a_copy, r.weights, r.places, static_cast<int>(r.chosen), cols,
              typed<T>(out));
      return cudaGetLastError();
    };
    const bool eights = cols % 8 == 0 && in_eights(x) && in_eights(out);
    return eights ? launch(std::integral_constant<int, 8>()) : launch(std::integral_constant<int, 1>());
  });
}

}  // namespace mezzo::cuda
