#include "kernels/cuda/score.h"

#include "kernels/cuda/device.cuh"

namespace mezzo::cuda {
namespace {

constexpr int threads = 512;

__global__ void __launch_bounds__(threads) log_sum_exp_row(Logits logits, double* totals) {
  const float* row = logits.data + blockIdx.x * logits.stride;
  const auto logit = [&](std::int64_t v) {
    return logits.bias != nullptr ? row[v] + logits.bias[v] : row[v];
  };
  float largest = -INFINITY;
  bool nan = false;  // fmaxf passes over NaN; the sum below does not, unless all terms are left out
  for (std::int64_t v = threadIdx.x; v < logits.vocabulary; v += threads) {
    largest = fmaxf(largest, logit(v));
    nan = nan || isnan(logit(v));
  }
  largest = block_max(largest);
  float sum = nan ? NAN : 0.0f;
  for (std::int64_t v = threadIdx.x; v < logits.vocabulary; v += threads) sum += expf(logit(v) - largest);
  sum = block_sum(sum);
  if (threadIdx.x == 0) totals[blockIdx.x] = static_cast<double>(largest) + log(static_cast<double>(sum));
}

__global__ void answer_questions(Logits logits, const double* totals, const std::int32_t* reads,
                                 const std::int32_t* tokens, std::int64_t questions, Typed<float> out,
                                 std::uint32_t* fault) {
  const std::int64_t j = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (j >= questions) return;
  const std::int64_t copy = blockIdx.y;
  const std::int64_t token = tokens[j];
  if (reads[j] < 0 || reads[j] >= logits.rows || token < 0 || token >= logits.vocabulary) {
    return report(fault, Fault::question);
  }
  const std::int64_t row = copy * logits.copy_rows + reads[j] - logits.first;
  if (row < 0 || row >= logits.count) return;
  const float bias = logits.bias != nullptr ? logits.bias[token] : 0.0f;
  const float logit = logits.data[row * logits.stride + token] + bias;
  out.row(copy, 0)[j] = static_cast<float>(logit - totals[row]);
}

}  // namespace

cudaError_t log_sum_exp(const Logits& logits, double* totals, cudaStream_t stream) {
  if (logits.count == 0) return cudaSuccess;
  log_sum_exp_row<<<blocks(logits.count, 1), threads, 0, stream>>>(logits, totals);
  return cudaGetLastError();
}

cudaError_t answer(const Logits& logits, const double* totals, const std::int32_t* question_reads,
                   const std::int32_t* question_tokens, std::int64_t questions, std::int64_t copies,
                   Matrices out, std::uint32_t* fault, cudaStream_t stream) {
  if (questions == 0) return cudaSuccess;
  answer_questions<<<dim3(blocks(questions, 128), blocks(copies, 1)), 128, 0, stream>>>(
      logits, totals, question_reads, question_tokens, questions, typed<float>(out), fault);
  return cudaGetLastError();
}

}  // namespace mezzo::cuda
