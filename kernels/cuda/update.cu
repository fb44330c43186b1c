#include "kernels/cuda/update.h"

#include "kernels/cuda/device.cuh"
#include "mezzo/core/update.h"

namespace mezzo::cuda {
namespace {

constexpr int threads = 128;

/// The tensor whose range holds `place`: the last one that begins at or before it and is not empty.
__device__ inline std::int64_t tensor_at(const std::int64_t* begin, std::int64_t count, std::int64_t place) {
  std::int64_t low = 0;
  std::int64_t high = count;  // begin[low] <= place < begin[high]
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    if (begin[middle] <= place) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

/// A thread updates the elements that share a block of normals.
__global__ void update_quads(float* values, TensorTable tensors, Step step) {
  const std::int64_t place = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (place >= tensors.quads) return;
  const std::int64_t tensor = tensor_at(tensors.quad_begin, tensors.count, place);
  const std::int64_t quad = place - tensors.quad_begin[tensor];
  const std::int64_t first = tensors.begin[tensor] + 4 * quad;
  const std::int64_t count = min(std::int64_t{4}, tensors.begin[tensor + 1] - first);
  float acc[4] = {};
  for (std::int64_t k = 0; k < step.directions; ++k) {
    const NoiseQuad z = noise4(step.noise, step.seeds[k], static_cast<std::uint32_t>(tensor),
                               static_cast<std::uint64_t>(quad));
#pragma unroll
    for (int i = 0; i < 4; ++i) acc[i] = update_accumulate(acc[i], step.coefficients[k], z.value[i]);
  }
  const float decay = update_decay(step.learning_rate, step.weight_decay);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i < count) values[first + i] = update_apply(values[first + i], acc[i], step.learning_rate, decay);
  }
}

__global__ void hash_elements(const float* values, TensorTable tensors, unsigned long long* sum) {
  const std::int64_t e = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  unsigned long long share = 0;
  if (e < tensors.elements) {
    const std::int64_t tensor = tensor_at(tensors.begin, tensors.count, e);
    share = element_hash(static_cast<std::uint32_t>(tensor),
                         static_cast<std::uint64_t>(e - tensors.begin[tensor]), values[e]);
  }
  // A sum of integers: the order in which shares meet does not matter.
  for (int step = 16; step > 0; step /= 2) share += __shfl_xor_sync(0xffffffffu, share, step);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, share);
}

}  // namespace

cudaError_t update(float* values, const TensorTable& tensors, const Step& step, cudaStream_t stream) {
  if (tensors.quads == 0) return cudaSuccess;
  update_quads<<<blocks(tensors.quads, threads), threads, 0, stream>>>(values, tensors, step);
  return cudaGetLastError();
}

cudaError_t hash(const float* values, const TensorTable& tensors, unsigned long long* sum,
                 cudaStream_t stream) {
  if (tensors.elements == 0) return cudaSuccess;
  hash_elements<<<blocks(tensors.elements, threads), threads, 0, stream>>>(values, tensors, sum);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
