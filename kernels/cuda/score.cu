#include "kernels/cuda/score.h"

#include "kernels/cuda/curve.cuh"
#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

constexpr int threads = 512;

/// A sum of exponentials less their largest exponent, kept up online (Milakov and Gimelshein 2018).
struct Exponentials {
  float largest = -INFINITY;
  float sum = 0.0f;

  /// NaN and an infinite value end in a sum that is NaN.
  template <int count>
  __device__ void add(const float (&values)[count]) {
    float most = values[0];
#pragma unroll
    for (int i = 1; i < count; ++i) most = fmaxf(most, values[i]);
    if (most > largest) {
      sum *= expf(largest - most);
      largest = most;
    }
#pragma unroll
    for (int i = 0; i < count; ++i) sum += values[i] == -INFINITY ? 0.0f : expf(values[i] - largest);
  }
};

/// One block a row: each thread's share in one pass, then the shares.
__global__ void __launch_bounds__(threads) log_sum_exp_row(Logits logits, double* totals) {
  const float* row = logits.data + blockIdx.x * logits.stride;  // rows begin on multiples of 16 bytes
  const auto bias = [&](std::int64_t v) {
    return logits.bias != nullptr ? element(logits.bias, logits.bias_dtype, v) : 0.0f;
  };
  Exponentials mine;
  const std::int64_t whole = logits.vocabulary / 8 * 8;
#pragma unroll 4
  for (std::int64_t v = 8 * threadIdx.x; v < whole; v += 8 * threads) {
    float eight[8];
    load8(row + v, eight);
    if (logits.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < 8; ++i) eight[i] += bias(v + i);
    }
    if (logits.soft_cap != 0.0f) {
#pragma unroll
      for (int i = 0; i < 8; ++i) eight[i] = soft_capped(eight[i], logits.soft_cap);
    }
    mine.add(eight);
  }
  for (std::int64_t v = whole + threadIdx.x; v < logits.vocabulary; v += threads) {
    const float logit = row[v] + bias(v);
    const float one[1] = {logits.soft_cap != 0.0f ? soft_capped(logit, logits.soft_cap) : logit};
    mine.add(one);
  }
  const float largest = block_max(mine.largest);
  // A share of -inf alone, or of nothing, adds nothing; NaN went into the sum and stays.
  const float scaled =
      mine.largest == -INFINITY && mine.sum == 0.0f ? 0.0f : mine.sum * expf(mine.largest - largest);
  const float sum = block_sum(scaled);
  if (threadIdx.x == 0) totals[blockIdx.x] = static_cast<double>(largest) + log(static_cast<double>(sum));
}

__global__ void score_targets(Logits logits, const double* totals, const std::int32_t* loss_rows,
                              const std::int32_t* tokens, std::int64_t targets, std::int64_t first_copy,
                              Typed<float> out, std::uint32_t* fault) {
  const std::int64_t j = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (j >= targets) return;
  const std::int64_t copy = first_copy + blockIdx.y;
  const std::int64_t token = tokens[j];
  if (loss_rows[j] < 0 || loss_rows[j] >= logits.rows || token < 0 || token >= logits.vocabulary) {
    return report(fault, Fault::target);
  }
  const std::int64_t row = copy * logits.copy_rows + loss_rows[j] - logits.first;
  if (row < 0 || row >= logits.count) return;
  const float bias = logits.bias != nullptr ? element(logits.bias, logits.bias_dtype, token) : 0.0f;
  float logit = logits.data[row * logits.stride + token] + bias;
  if (logits.soft_cap != 0.0f) logit = soft_capped(logit, logits.soft_cap);
  out.row(copy, 0)[j] = static_cast<float>(logit - totals[row]);
}

}  // namespace

cudaError_t log_sum_exp(const Logits& logits, double* totals, cudaStream_t stream) {
  if (logits.count == 0) return cudaSuccess;
  log_sum_exp_row<<<blocks(logits.count, 1), threads, 0, stream>>>(logits, totals);
  return cudaGetLastError();
}

cudaError_t answer(const Logits& logits, const double* totals, const std::int32_t* target_rows,
                   const std::int32_t* target_tokens, std::int64_t targets, std::int64_t copies, Matrices out,
                   std::uint32_t* fault, cudaStream_t stream) {
  if (targets == 0 || logits.count == 0) return cudaSuccess;
  std::int64_t first_copy = 0;  // the copies that these logits touch
  if (logits.copy_rows > 0) {
    first_copy = logits.first / logits.copy_rows;
    copies = (logits.first + logits.count - 1) / logits.copy_rows - first_copy + 1;
  }
  score_targets<<<dim3(blocks(targets, 128), blocks(copies, 1)), 128, 0, stream>>>(
      logits, totals, target_rows, target_tokens, targets, first_copy, typed<float>(out), fault);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
