#include "kernels/cuda/update.h"

#include "kernels/cuda/device.cuh"
#include "mezzo/core/update.h"

namespace mezzo::cuda {
namespace {

constexpr int threads = 128;

/// The sums over directions of a tensor's four elements from 4 `quad` on.
__device__ inline void sum_quad(float (&acc)[4], const Step& step, std::int64_t tensor, std::int64_t quad) {
  for (std::int64_t k = 0; k < step.directions; ++k) {
    const NoiseQuad z = noise4(step.noise, step.seeds[k], static_cast<std::uint32_t>(tensor),
                               static_cast<std::uint64_t>(quad));
#pragma unroll
    for (int i = 0; i < 4; ++i) acc[i] = update_accumulate(acc[i], step.coefficients[k], z.value[i]);
  }
}

/// A thread updates the elements that share a block of normals.
template <UpdateRule rule>
__global__ void update_quads(float* values, UpdateState state, TensorTable tensors, Step step) {
  const std::int64_t place = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (place >= tensors.quads) return;
  const std::int64_t tensor = range_at(tensors.quad_begin, tensors.count, place);
  const std::int64_t quad = place - tensors.quad_begin[tensor];
  const std::int64_t first = tensors.begin[tensor] + 4 * quad;
  const std::int64_t count = min(std::int64_t{4}, tensors.begin[tensor + 1] - first);
  float acc[4] = {};
  sum_quad(acc, step, tensor, quad);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) update_at<rule>(step.factors, values, state, first + i, acc[i]);
  }
}

/// Adam with one second moment a tensor: a block updates a tensor, a thread is a lane of its sum of squares.
__global__ void __launch_bounds__(moment_lanes)
    update_tensor(float* values, UpdateState state, TensorTable tensors, Step step) {
  __shared__ double lanes[moment_lanes];
  const std::int64_t tensor = blockIdx.x;
  const std::int64_t first = tensors.begin[tensor];
  const std::int64_t count = tensors.begin[tensor + 1] - first;
  if (count == 0) return;
  const int lane = static_cast<int>(threadIdx.x);
  double sum = 0.0;
  for (std::int64_t quad = lane; 4 * quad < count; quad += moment_lanes) {
    float acc[4] = {};
    sum_quad(acc, step, tensor, quad);
    double squares = 0.0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t e = 4 * quad + i;
      if (e >= count) break;
      state.first[first + e] = adam_first(step.factors, state.first[first + e], acc[i]);
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
  const float second = scalar_second(step.factors, state.second[tensor], lanes[0], count);
  __syncthreads();
  if (lane == 0) state.second[tensor] = second;
  for (std::int64_t e = lane; e < count; e += moment_lanes)
    update_by_scalar(step.factors, values, state, first + e, second);
}

__global__ void hash_elements(const float* values, TensorTable tensors, unsigned long long* sum) {
  const std::int64_t e = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  unsigned long long share = 0;
  if (e < tensors.elements) {
    const std::int64_t tensor = range_at(tensors.begin, tensors.count, e);
    share = element_hash(static_cast<std::uint32_t>(tensor),
                         static_cast<std::uint64_t>(e - tensors.begin[tensor]), values[e]);
  }
  // A sum of integers: the order in which shares meet does not matter.
  for (int step = 16; step > 0; step /= 2) share += __shfl_xor_sync(0xffffffffu, share, step);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, share);
}

}  // namespace

cudaError_t update(float* values, const UpdateState& state, const TensorTable& tensors, const Step& step,
                   cudaStream_t stream) {
  if (tensors.quads == 0) return cudaSuccess;
  if (step.factors.scalar_second) {
    update_tensor<<<static_cast<unsigned>(tensors.count), moment_lanes, 0, stream>>>(values, state, tensors,
                                                                                     step);
    return cudaGetLastError();
  }
  with_rule(step.factors.rule, [&](auto known) {
    update_quads<decltype(known)::rule>
        <<<blocks(tensors.quads, threads), threads, 0, stream>>>(values, state, tensors, step);
  });
  return cudaGetLastError();
}

cudaError_t hash(const float* values, const TensorTable& tensors, unsigned long long* sum,
                 cudaStream_t stream) {
  if (tensors.elements == 0) return cudaSuccess;
  hash_elements<<<blocks(tensors.elements, threads), threads, 0, stream>>>(values, tensors, sum);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
