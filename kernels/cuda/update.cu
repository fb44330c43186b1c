#include "kernels/cuda/update.h"

#include <limits>

#include "kernels/cuda/device.cuh"
#include "mezzo/core/update.h"

namespace mezzo::cuda {
namespace {

constexpr int threads = 128;

/// The sums over directions of a tensor's four elements from 4 `quad` on, its noise that of its elements.
struct ElementSums {
  Step step;
  std::int64_t tensor;

  __device__ void add(float (&acc)[4], std::int64_t quad, std::int64_t) const {
    for (std::int64_t k = 0; k < step.directions; ++k) {
      const NoiseQuad z = noise4(step.noise, step.seeds[k], static_cast<std::uint32_t>(tensor),
                                 static_cast<std::uint64_t>(quad));
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[i] = update_accumulate(acc[i], step.coefficients[k], z.value[i]);
    }
  }
};

/// The same of a tensor with noise of low rank, from its factors.
struct OuterSums {
  Step step;
  OuterTensor tensor;
  const float* factors;

  __device__ void add(float (&acc)[4], std::int64_t quad, std::int64_t count) const {
    const std::int64_t rank = tensor.noise.rank;
    const std::int64_t cols = tensor.noise.cols;
    const float scale = outer_scale(rank);
    for (std::int64_t k = 0; k < step.directions; ++k) {
      const float* const u = factors + k * rank * (tensor.rows + cols);
      const float* const v = u + rank * tensor.rows;
      for (int i = 0; i < 4 && 4 * quad + i < count; ++i) {
        const std::int64_t element = 4 * quad + i;
        const float z = outer_element(u + element / cols * rank, v + element % cols, cols, rank, scale);
        acc[i] = update_accumulate(acc[i], step.coefficients[k], z);
      }
    }
  }
};

static_assert(group_elements == elements_per_rounding_block && group_elements == 8);

/// Which of the ranges holds `place`, of a thread whose block begins at `first`: one search a block.
__device__ std::int64_t range_in_block(const std::int64_t* begins, std::int64_t count, std::int64_t first,
                                       std::int64_t place) {
  __shared__ std::int64_t of_first;
  if (threadIdx.x == 0) of_first = range_at(begins, count, first);
  __syncthreads();
  std::int64_t at = of_first;
  while (at + 1 < count && begins[at + 1] <= place) ++at;
  return at;
}

__device__ void load_masters(const float* from, float (&to)[8]) { load8(from, to); }
__device__ void load_masters(const std::uint16_t* from, float (&to)[8]) {
  load8(reinterpret_cast<const bf16*>(from), to);
}
__device__ void store_masters(float* to, const float (&from)[8]) { store8(to, from); }
__device__ void store_masters(std::uint16_t* to, const float (&from)[8]) {
  std::uint32_t pair[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    pair[i] = ieee::to_bits(from[2 * i]) >> 16 | (ieee::to_bits(from[2 * i + 1]) & 0xffff0000u);
  *reinterpret_cast<uint4*>(to) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

/// A thread updates a group.
template <UpdateRule rule, typename Master>
__global__ void __launch_bounds__(threads)
    update_groups(Master* values, UpdateState state, TensorTable tensors, Step step) {
  const std::int64_t block = std::int64_t{blockIdx.x} * threads;
  const std::int64_t place = block + threadIdx.x;
  const std::int64_t tensor = range_in_block(tensors.group_begin, tensors.count, block, place);
  if (place >= tensors.groups) return;
  const std::int64_t element = group_elements * (place - tensors.group_begin[tensor]);
  const std::int64_t first = tensors.begin[tensor] + element;
  const std::int64_t count = min(group_elements, tensors.begin[tensor + 1] - first);
  const ElementSums sums{step, tensor};
  float acc[2][4] = {};
  sums.add(acc[0], element / 4, count);
  if (count > 4) sums.add(acc[1], element / 4 + 1, count);
  const BlockRounding<Master> rounding(step.rounding, static_cast<std::uint32_t>(tensor),
                                       static_cast<std::uint64_t>(element));
  const auto updated = [&](int i, float theta) {
    return updated_at<rule>(step.factors, theta, state, first + i, acc[i / 4][i % 4],
                            rounding.of(static_cast<std::uint64_t>(element + i)));
  };
  if (count == group_elements && in_eights(values + first)) {
    float theta[8];
    load_masters(values + first, theta);
#pragma unroll
    for (int i = 0; i < 8; ++i) theta[i] = updated(i, theta[i]);
    store_masters(values + first, theta);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i < count) store_master(values[first + i], updated(i, master_value(values[first + i])));
  }
}

/// Adam with one second moment a tensor: a block updates a tensor of `count` elements, a thread is a lane of
/// its sum of squares.
template <typename Master, typename Sums>
__device__ void update_by_block(Master* theta, const UpdateState& state, std::int64_t count, const Step& step,
                                std::uint32_t tensor, const Sums& sums) {
  const UpdateFactors& factors = step.factors;
  __shared__ double lanes[moment_lanes];
  const int lane = static_cast<int>(threadIdx.x);
  double sum = 0.0;
  for (std::int64_t quad = lane; 4 * quad < count; quad += moment_lanes) {
    float acc[4] = {};
    sums.add(acc, quad, count);
    double squares = 0.0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t e = 4 * quad + i;
      if (e >= count) break;
      state.first[e] = adam_first(factors, state.first[e], acc[i]);
      squares = add_square(squares, acc[i]);
    }
    sum += squares;
  }
  lanes[lane] = sum;
  for (int width = moment_lanes / 2; width > 0; width /= 2) {
    __syncthreads();
    if (lane < width) lanes[lane] += lanes[lane + width];
  }
  __syncthreads();
  // Every thread computes the same moment from the old one before the first thread stores it.
  const float second = scalar_second(factors, *state.second, lanes[0], count);
  __syncthreads();
  if (lane == 0) *state.second = second;
  for (std::int64_t e = lane; e < count; e += moment_lanes) {
    const auto element = static_cast<std::uint64_t>(e);
    const BlockRounding<Master> rounding(step.rounding, tensor, element);
    update_by_scalar(factors, theta, state, e, second, rounding.of(element));
  }
}

/// A block for each tensor.
template <typename Master>
__global__ void __launch_bounds__(moment_lanes)
    update_tensors(Master* values, UpdateState state, TensorTable tensors, Step step) {
  const std::int64_t tensor = blockIdx.x;
  if (tensors.group_begin[tensor] == tensors.group_begin[tensor + 1]) return;
  const std::int64_t first = tensors.begin[tensor];
  const UpdateState own = {.drift = state.drift != nullptr ? state.drift + first : nullptr,
                           .first = state.first + first,
                           .second = state.second + tensor};
  update_by_block(values + first, own, tensors.begin[tensor + 1] - first, step,
                  static_cast<std::uint32_t>(tensor), ElementSums{step, tensor});
}

__global__ void __launch_bounds__(moment_lanes)
    update_outer_tensor(float* values, UpdateState state, OuterTensor tensor, Step step,
                        const float* factors) {
  update_by_block(values, state, tensor.rows * tensor.noise.cols, step, tensor.noise.tensor,
                  OuterSums{step, tensor, factors});
}

/// The factors of all directions; a thread makes four elements of one.
__global__ void write_outer_factors(OuterTensor tensor, Step step, float* factors) {
  const std::int64_t u = tensor.rows * tensor.noise.rank;
  const std::int64_t v = tensor.noise.cols * tensor.noise.rank;
  const std::int64_t u_quads = (u + 3) / 4;
  std::int64_t quad = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  const bool in_v = quad >= u_quads;
  if (in_v) quad -= u_quads;
  const std::int64_t count = in_v ? v : u;
  if (4 * quad >= count) return;
  const std::int64_t k = blockIdx.y;
  const NoiseTensor noise = in_v ? outer_columns(tensor.noise.tensor) : outer_rows(tensor.noise.tensor);
  const NoiseQuad z = noise4(step.noise, step.seeds[k], noise, static_cast<std::uint64_t>(quad));
  float* const to = factors + k * (u + v) + (in_v ? u : 0);
  for (int i = 0; i < 4 && 4 * quad + i < count; ++i) to[4 * quad + i] = z.value[i];
}

constexpr int outer_rows_a_thread = 16;
constexpr int outer_cols_a_thread = 2;
constexpr int outer_factors_a_pass = 256;  // pairs of a direction and a rank whose rows of U a block holds
constexpr int outer_pairs_ahead = 4;       // pairs whose numbers of V are on their way; divides the others

/// A thread updates two columns of 16 rows: outer_element() of each, with every number of U and V read once
/// for all of them, those of V some pairs before they are used.
template <UpdateRule rule>
__global__ void __launch_bounds__(threads, 4)
    update_outer_columns(float* values, UpdateState state, OuterTensor tensor, Step step,
                         const float* factors) {
  __shared__ float u[outer_factors_a_pass][outer_rows_a_thread];
  const int rank = static_cast<int>(tensor.noise.rank);
  const int pairs = static_cast<int>(step.directions) * rank;
  const std::int64_t cols = tensor.noise.cols;
  const std::int64_t row0 = std::int64_t{blockIdx.y} * outer_rows_a_thread;
  const std::int64_t col = std::int64_t{blockIdx.x} * threads * outer_cols_a_thread + threadIdx.x;
  const std::int64_t stride = rank * (tensor.rows + cols);  // of a direction's factors
  // Columns behind the last one are computed as the last one, and left.
  const std::int64_t at = min(col, cols - 1);
  const std::int64_t to_second = min(col + threads, cols - 1) - at;
  const float scale = outer_scale(rank);
  const int rows = static_cast<int>(min(std::int64_t{outer_rows_a_thread}, tensor.rows - row0));
  float acc[outer_cols_a_thread][outer_rows_a_thread] = {};
  float z[outer_cols_a_thread][outer_rows_a_thread] = {};
  int k = 0, q = 0;                                    // the pair's direction and rank
  const float* v = factors + rank * tensor.rows + at;  // of the next pair that is not on its way
  int v_pair = 0, v_rank = 0;
  float next[outer_pairs_ahead][outer_cols_a_thread] = {};
  const auto load_next = [&](float(&to)[outer_cols_a_thread]) {
    if (v_pair++ >= pairs) return;
    to[0] = v[0];
    to[1] = v[to_second];
    v += cols;
    if (++v_rank < rank) return;
    v_rank = 0;
    v += stride - rank * cols;
  };
#pragma unroll
  for (auto& each : next) load_next(each);
  for (int first = 0; first < pairs; first += outer_factors_a_pass) {
    const int count = min(outer_factors_a_pass, pairs - first);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < count * outer_rows_a_thread; i += threads) {
      const auto pair = static_cast<std::uint32_t>(first + i / outer_rows_a_thread);
      const int row = i % outer_rows_a_thread;
      const std::uint32_t direction = pair / static_cast<std::uint32_t>(rank);
      const std::uint32_t of_rank = pair % static_cast<std::uint32_t>(rank);
      if (row < rows)
        u[i / outer_rows_a_thread][row] = factors[direction * stride + (row0 + row) * rank + of_rank];
    }
    __syncthreads();
    for (int begin = 0; begin < count; begin += outer_pairs_ahead) {
      float now[outer_pairs_ahead][outer_cols_a_thread];
#pragma unroll
      for (int p = 0; p < outer_pairs_ahead; ++p) {
#pragma unroll
        for (int j = 0; j < outer_cols_a_thread; ++j) now[p][j] = next[p][j];
        load_next(next[p]);
      }
#pragma unroll
      for (int p = 0; p < outer_pairs_ahead; ++p) {
        if (begin + p >= count) break;
#pragma unroll
        for (int i = 0; i < outer_rows_a_thread; ++i) {
#pragma unroll
          for (int j = 0; j < outer_cols_a_thread; ++j)
            z[j][i] = ieee::fma(u[begin + p][i], now[p][j], z[j][i]);
        }
        if (++q < rank) continue;
        q = 0;
        const float coefficient = step.coefficients[k++];
#pragma unroll
        for (int i = 0; i < outer_rows_a_thread; ++i) {
#pragma unroll
          for (int j = 0; j < outer_cols_a_thread; ++j) {
            acc[j][i] = update_accumulate(acc[j][i], coefficient, ieee::mul(z[j][i], scale));
            z[j][i] = 0.0f;
          }
        }
      }
    }
  }
#pragma unroll
  for (int j = 0; j < outer_cols_a_thread; ++j) {
    const std::int64_t column = col + j * threads;
    if (column >= cols) return;
#pragma unroll
    for (int i = 0; i < outer_rows_a_thread; ++i) {
      if (i < rows)
        update_at<rule>(step.factors, values, state, (row0 + i) * cols + column, acc[j][i], KeepFp32{});
    }
  }
}

constexpr std::int64_t hashed_by_thread = 16;  // times eight elements

/// A block takes neighbouring elements, a thread of it eight neighbours at a time.
template <typename Master>
__global__ void __launch_bounds__(threads)
    hash_elements(const Master* values, TensorTable tensors, unsigned long long* sum) {
  const std::int64_t begin = std::int64_t{blockIdx.x} * threads * hashed_by_thread * 8;
  std::int64_t tensor = range_in_block(tensors.begin, tensors.count, begin, begin);
  std::uint64_t of_tensor = tensor_hash(static_cast<std::uint32_t>(tensor));
  unsigned long long share = 0;
  for (std::int64_t round = 0; round < hashed_by_thread; ++round) {
    const std::int64_t first = begin + 8 * (round * threads + threadIdx.x);
    if (first >= tensors.elements) break;
    const int count = static_cast<int>(min(std::int64_t{8}, tensors.elements - first));
    float value[8];
    if (count == 8) {
      load_masters(values + first, value);
    } else {
      for (int i = 0; i < count; ++i) value[i] = master_value(values[first + i]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i >= count) break;
      while (tensors.begin[tensor + 1] <= first + i)
        of_tensor = tensor_hash(static_cast<std::uint32_t>(++tensor));
      share +=
          hash_in_tensor(of_tensor, static_cast<std::uint64_t>(first + i - tensors.begin[tensor]), value[i]);
    }
  }
  // A sum of integers: the order in which shares meet does not matter.
  for (int step = 16; step > 0; step /= 2) share += __shfl_xor_sync(0xffffffffu, share, step);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, share);
}

}  // namespace

template <typename Master>
cudaError_t update(Master* values, const UpdateState& state, const TensorTable& tensors, const Step& step,
                   cudaStream_t stream) {
  if (tensors.groups == 0) return cudaSuccess;
  if (step.factors.scalar_second) {
    update_tensors<<<static_cast<unsigned>(tensors.count), moment_lanes, 0, stream>>>(values, state, tensors,
                                                                                      step);
    return cudaGetLastError();
  }
  with_rule(step.factors.rule, [&](auto known) {
    update_groups<decltype(known)::rule, Master>
        <<<blocks(tensors.groups, threads), threads, 0, stream>>>(values, state, tensors, step);
  });
  return cudaGetLastError();
}

cudaError_t update_outer(float* values, const UpdateState& state, const OuterTensor& tensor, const Step& step,
                         float* factors, cudaStream_t stream) {
  const std::int64_t cols = tensor.noise.cols;
  if (tensor.rows * cols == 0 || step.directions == 0) return cudaSuccess;
  const std::int64_t rank = tensor.noise.rank;
  if (step.directions * rank > std::numeric_limits<int>::max()) return cudaErrorInvalidValue;
  const std::int64_t quads = (tensor.rows * rank + 3) / 4 + (cols * rank + 3) / 4;
  write_outer_factors<<<dim3(blocks(quads, threads), blocks(step.directions, 1)), threads, 0, stream>>>(
      tensor, step, factors);
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess) return status;
  if (step.factors.scalar_second) {
    update_outer_tensor<<<1, moment_lanes, 0, stream>>>(values, state, tensor, step, factors);
    return cudaGetLastError();
  }
  const dim3 grid(blocks(cols, threads * outer_cols_a_thread), blocks(tensor.rows, outer_rows_a_thread));
  with_rule(step.factors.rule, [&](auto known) {
    update_outer_columns<decltype(known)::rule>
        <<<grid, threads, 0, stream>>>(values, state, tensor, step, factors);
  });
  return cudaGetLastError();
}

template <typename Master>
cudaError_t hash(const Master* values, const TensorTable& tensors, unsigned long long* sum,
                 cudaStream_t stream) {
  if (tensors.elements == 0) return cudaSuccess;
  hash_elements<<<blocks(tensors.elements, threads * hashed_by_thread * 8), threads, 0, stream>>>(
      values, tensors, sum);
  return cudaGetLastError();
}

template cudaError_t update(float*, const UpdateState&, const TensorTable&, const Step&, cudaStream_t);
template cudaError_t update(std::uint16_t*, const UpdateState&, const TensorTable&, const Step&,
                            cudaStream_t);
template cudaError_t hash(const float*, const TensorTable&, unsigned long long*, cudaStream_t);
template cudaError_t hash(const std::uint16_t*, const TensorTable&, unsigned long long*, cudaStream_t);

}  // namespace mezzo::cuda
