// Checks sum_logits and answer (kernels/cuda/head.h) against sums in fp64, for batch invariance and
// for the same ends of NaN and infinities as log_sum_exp's; then times them beside cuBLASLt and log_sum_exp.
// usage: head_speed [check|small|time]; small: few checks, for a sanitizer. Exit 1: a check failed.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/head.h"
#include "kernels/cuda/score.h"
#include "random_rows.cuh"

namespace {

using namespace mezzo;
using namespace mezzo::cuda;
using bf16 = __nv_bfloat16;

/// logits in fp64; one block a row.
__global__ void multiply_plainly(const bf16* x, std::int64_t x_stride, const bf16* w, std::int64_t w_stride,
                                 std::int64_t in, std::int64_t vocabulary, const void* bias, bool bias_f32,
                                 double* logits) {
  const bf16* const row = x + blockIdx.x * x_stride;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += blockDim.x) {
    double sum = 0.0;
    for (std::int64_t k = 0; k < in; ++k)
      sum += double(__bfloat162float(row[k])) * double(__bfloat162float(w[v * w_stride + k]));
    if (bias != nullptr)
      sum +=
          bias_f32 ? static_cast<const float*>(bias)[v] : __bfloat162float(static_cast<const bf16*>(bias)[v]);
    logits[blockIdx.x * vocabulary + v] = sum;
  }
}

// ---- a case
// -----------------------------------------------------------------------------------------------------

struct Case {
  std::int64_t copies = 1, rows = 1, in = 768, vocabulary = 5000;
  int bias = 0;  // 0: none, 1: fp32, 2: bf16
  bool shared = false;
  std::int64_t pad = 0;    // columns behind a row of x
  std::int64_t range = 0;  // rows at a time; 0: all
  std::int64_t shift = 0;  // of the rows of x
};

int failures = 0;

void expect(bool right, const Case& c, const char* what) {
  if (right) return;
  ++failures;
  std::printf("FAILED: %s (%lld x %lld rows, in %lld, vocabulary %lld, bias %d, shared %d, range %lld)\n",
              what, (long long)c.copies, (long long)c.rows, (long long)c.in, (long long)c.vocabulary, c.bias,
              c.shared, (long long)c.range);
}

struct Asked {
  std::vector<std::int32_t> loss_rows, tokens, begins, targets;
};

/// One target a row, none for some and a few for others, in no order.
Asked targets_of(const Case& c) {
  Asked asked;
  std::vector<std::vector<std::int32_t>> of_row(c.rows);
  for (std::int64_t i = c.rows - 1; i >= 0; --i) {
    const int several = c.rows > 1 && i % 7 == 3 ? 0 : i % 5 == 2 ? 3 : 1;
    for (int q = 0; q < several; ++q) {
      of_row[i].push_back(static_cast<std::int32_t>(asked.loss_rows.size()));
      asked.loss_rows.push_back(static_cast<std::int32_t>(i));
      asked.tokens.push_back(static_cast<std::int32_t>(
          q == 1 ? c.vocabulary - 1 : mix(i * 7919 + q + 1000 * c.shift) % c.vocabulary));
    }
  }
  for (const auto& row : of_row) {
    asked.begins.push_back(static_cast<std::int32_t>(asked.targets.size()));
    asked.targets.insert(asked.targets.end(), row.begin(), row.end());
  }
  asked.begins.push_back(static_cast<std::int32_t>(asked.targets.size()));
  return asked;
}

std::int64_t stride_of(std::int64_t columns) { return (columns + 7) / 8 * 8; }

constexpr float x_scale = 1.7f;
float w_scale(const Case& c) { return 5.0f / std::sqrt(static_cast<float>(c.in)); }
constexpr std::int64_t period = 1 << 20;

/// x, weight and bias of a case; `special` may change some elements.
struct Operands {
  Array<bf16> x, weight;
  Array<float> bias_f32;
  Array<bf16> bias_bf16;
  const void* bias = nullptr;
  std::int64_t x_rows, x_stride, w_stride;

  explicit Operands(const Case& c)
      : x((c.shared ? 1 : c.copies) * c.rows * (stride_of(c.in) + c.pad)),
        weight(c.vocabulary * stride_of(c.in)),
        bias_f32(c.vocabulary),
        bias_bf16(c.vocabulary),
        x_rows((c.shared ? 1 : c.copies) * c.rows),
        x_stride(stride_of(c.in) + c.pad),
        w_stride(stride_of(c.in)) {
    fill<<<512, 256>>>(x.data, x_rows, c.in, x_stride, 1, x_scale, c.shift, period);
    fill<<<512, 256>>>(weight.data, c.vocabulary, c.in, w_stride, 2, w_scale(c), 0, period);
    std::vector<float> f32;
    std::vector<bf16> half;
    for (std::int64_t v = 0; v < c.vocabulary; ++v) {
      f32.push_back(2.0f * value(3, 0, v));
      half.push_back(__float2bfloat16_rn(f32.back()));
    }
    must(cudaMemcpy(bias_f32.data, f32.data(), f32.size() * sizeof(float), cudaMemcpyHostToDevice), "copy");
    must(cudaMemcpy(bias_bf16.data, half.data(), half.size() * sizeof(bf16), cudaMemcpyHostToDevice), "copy");
    if (c.bias == 1) bias = bias_f32.data;
    if (c.bias == 2) bias = bias_bf16.data;
  }
};

std::vector<float> score(const Case& c, const Operands& o, const Asked& asked) {
  const Array<std::int32_t> loss_rows(asked.loss_rows), tokens(asked.tokens), begins(asked.begins),
      row_targets(asked.targets);
  const auto count = static_cast<std::int64_t>(asked.loss_rows.size());
  const Array<float> out(std::vector<float>(c.copies * count, NAN));
  const Array<std::uint32_t> fault(std::vector<std::uint32_t>{0});
  const std::int64_t range = c.range > 0 ? c.range : o.x_rows;
  const Array<float> sums(std::vector<float>(range * head_sums(c.vocabulary), NAN));
  const Targets targets{loss_rows.data, tokens.data, begins.data, row_targets.data, count};
  const Matrices answers{out.data, DType::f32, count, count};
  for (std::int64_t first = 0; first < o.x_rows; first += range) {
    const Head head{.x = o.x.data + first * o.x_stride,
                    .x_stride = o.x_stride,
                    .weight = o.weight.data,
                    .weight_stride = o.w_stride,
                    .in = c.in,
                    .vocabulary = c.vocabulary,
                    .bias = o.bias,
                    .bias_dtype = c.bias == 1 ? DType::f32 : DType::bf16,
                    .first = first,
                    .count = std::min(range, o.x_rows - first),
                    .copy_rows = c.shared ? 0 : c.rows,
                    .rows = c.rows};
    must(sum_logits(head, targets, sums.data, answers, nullptr), "sum_logits");
    must(answer(head, targets, sums.data, c.copies, answers, fault.data, nullptr), "answer");
  }
  must(cudaDeviceSynchronize(), "score");
  expect(fault.read()[0] == 0, c, "a fault");
  return out.read();
}

std::vector<double> plain_logits(const Case& c, const Operands& o) {
  const Array<double> logits(o.x_rows * c.vocabulary);
  multiply_plainly<<<o.x_rows, 512>>>(o.x.data, o.x_stride, o.weight.data, o.w_stride, c.in, c.vocabulary,
                                      o.bias, c.bias == 1, logits.data);
  must(cudaDeviceSynchronize(), "plain logits");
  return logits.read();
}

bool same(const float* a, const float* b, std::size_t n) { return std::memcmp(a, b, n * sizeof(float)) == 0; }

double check(const Case& c) {
  const Operands o(c);
  const Asked asked = targets_of(c);
  const std::vector<float> got = score(c, o, asked);
  const std::vector<double> logits = plain_logits(c, o);
  const std::size_t count = asked.loss_rows.size();
  std::vector<double> totals;
  for (std::int64_t i = 0; i < o.x_rows; ++i) {
    const double* const row = &logits[i * c.vocabulary];
    const double largest = *std::max_element(row, row + c.vocabulary);
    double sum = 0.0;
    for (std::int64_t v = 0; v < c.vocabulary; ++v) sum += std::exp(row[v] - largest);
    totals.push_back(largest + std::log(sum));
  }
  double error = 0.0;
  for (std::int64_t copy = 0; copy < c.copies; ++copy) {
    for (std::size_t j = 0; j < count; ++j) {
      const std::int64_t row = (c.shared ? 0 : copy * c.rows) + asked.loss_rows[j];
      const double wanted = logits[row * c.vocabulary + asked.tokens[j]] - totals[row];
      const double difference = std::abs(got[copy * count + j] - wanted);
      error = std::isnan(difference) ? INFINITY : std::max(error, difference);
    }
  }
  // Logits of up to about 20 are sums of `in` products, each added with an error of about 2^-23 of the sum.
  expect(error < 20.0 * 0x1p-23 * static_cast<double>(c.in + 64), c, "error against fp64");
  return error;
}

/// The same rows in other company: bits.
void check_batch_invariance(const Case& c) {
  const Operands o(c);
  const Asked asked = targets_of(c);
  const std::size_t count = asked.loss_rows.size();
  const std::vector<float> all = score(c, o, asked);
  expect(same(all.data(), score(c, o, asked).data(), all.size()), c, "bits of a second run");
  Case ranges = c;
  for (const std::int64_t range : {1, 31, 100, 257}) {
    if (o.x_rows > 64 * range) continue;
    ranges.range = range;
    expect(same(all.data(), score(ranges, o, asked).data(), all.size()), c, "bits in ranges");
  }
  // Rows [shift, rows) alone: they lie elsewhere in their tiles, and the first of them in another one.
  for (const std::int64_t shift : {std::int64_t{1}, c.rows / 2, c.rows - 1}) {
    Case part = c;
    part.copies = 1;
    part.shift = shift;
    part.rows = c.rows - shift;
    if (part.rows < 1) continue;
    const Operands part_operands(part);
    Asked part_asked;
    std::vector<std::int32_t> index;
    part_asked.begins.push_back(0);
    for (std::int64_t i = 0; i < part.rows; ++i) {
      for (std::size_t j = 0; j < count; ++j) {
        if (asked.loss_rows[j] != i + shift) continue;
        part_asked.targets.push_back(static_cast<std::int32_t>(part_asked.loss_rows.size()));
        part_asked.loss_rows.push_back(static_cast<std::int32_t>(i));
        part_asked.tokens.push_back(asked.tokens[j]);
        index.push_back(static_cast<std::int32_t>(j));
      }
      part_asked.begins.push_back(static_cast<std::int32_t>(part_asked.targets.size()));
    }
    const std::vector<float> some = score(part, part_operands, part_asked);
    bool right = true;
    for (std::size_t k = 0; k < index.size(); ++k) right = right && same(&all[index[k]], &some[k], 1);
    expect(right, c, "bits of rows elsewhere");
  }
}

/// Rows with NaN and infinities: the kinds of answers that log_sum_exp over fp32 logits gives.
void check_specials() {
  const Case c{.copies = 1, .rows = 40, .in = 64, .vocabulary = 700};
  const Operands o(c);
  std::vector<bf16> x = o.x.read(), w = o.weight.read();
  const auto set = [&](std::vector<bf16>& m, std::int64_t i, std::int64_t j, float to) {
    m[i * stride_of(c.in) + j] = __float2bfloat16_rn(to);
  };
  for (std::int64_t v = 0; v < c.vocabulary; ++v) {
    set(w, v, 0, v % 3 == 0 ? -1.0f : v % 3 == 1 ? 1.0f : 0.0f);  // times inf: -inf, inf, NaN
    set(w, v, 1, 1.0f);                                           // times -inf: all of them
    set(w, v, 2, v == 300 ? 1.0f : 0x1p-100f);                    // times 2^100: one very large
    set(w, v, 3, v % 2 == 0 ? -1.0f : 1.0f);
  }
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (int j = 0; j < 4; ++j) set(x, i, j, 0.0f);
  }
  for (int i = 0; i < 10; ++i) set(x, i, 5, i < 5 ? NAN : 0.5f);
  set(x, 10, 0, INFINITY);
  set(x, 11, 0, -INFINITY);
  set(x, 12, 1, -INFINITY);
  set(x, 13, 1, INFINITY);
  set(x, 14, 2, 0x1p100f);
  set(x, 15, 3, 1000.0f);  // half of them far below the others
  set(x, 16, 3, 0x1p120f);
  must(cudaMemcpy(o.x.data, x.data(), x.size() * sizeof(bf16), cudaMemcpyHostToDevice), "copy");
  must(cudaMemcpy(o.weight.data, w.data(), w.size() * sizeof(bf16), cudaMemcpyHostToDevice), "copy");
  const Asked asked = targets_of(c);
  const std::size_t count = asked.loss_rows.size();
  const std::vector<float> got = score(c, o, asked);

  std::vector<float> logits;
  for (const double logit : plain_logits(c, o)) logits.push_back(static_cast<float>(logit));
  const Array<float> logits_at(logits), out(std::vector<float>(count, NAN));
  const Array<double> totals(o.x_rows);
  const Array<std::int32_t> loss_rows(asked.loss_rows), tokens(asked.tokens);
  const Array<std::uint32_t> fault(std::vector<std::uint32_t>{0});
  const Logits old{.data = logits_at.data,
                   .stride = c.vocabulary,
                   .vocabulary = c.vocabulary,
                   .count = o.x_rows,
                   .copy_rows = c.rows,
                   .rows = c.rows};
  must(log_sum_exp(old, totals.data, nullptr), "log_sum_exp");
  must(answer(old, totals.data, loss_rows.data, tokens.data, static_cast<std::int64_t>(count), 1,
              {out.data, DType::f32, 0, 0}, fault.data, nullptr),
       "answer");
  const std::vector<float> wanted = out.read();
  bool right = true;
  int nan = 0, infinite = 0, finite = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const float a = got[j], b = wanted[j];
    const bool alike =
        (std::isnan(a) && std::isnan(b)) || a == b || std::abs(a - b) <= 1e-4f + 1e-5f * std::abs(b);
    if (!alike) std::printf("row %d: %g instead of %g\n", asked.loss_rows[j], a, b);
    right = right && alike;
    ++(std::isnan(b) ? nan : std::isinf(b) ? infinite : finite);
  }
  expect(right && nan > 5 && finite > 20, c, "NaN and infinities");
  std::printf("NaN and infinities: %d NaN, %d infinite, %d finite answers\n", nan, infinite, finite);
}

void check_all(bool few) {
  std::printf("largest error against fp64\n%8s %6s %6s %10s | %9s %9s %9s %9s %9s\n", "copies", "rows", "in",
              "vocabulary", "plain", "fp32 bias", "bf16 bias", "shared", "ranges");
  struct Shape {
    std::int64_t copies, rows, in, vocabulary;
  };
  std::vector<Shape> shapes = {{3, 31, 33, 257}, {1, 1, 8, 8}, {2, 130, 200, 300}, {1, 257, 768, 1000}};
  if (!few) {
    for (const Shape& more : {Shape{1, 33, 72, 33},
                              {3, 257, 64, 5000},
                              {2, 33, 256, 256},
                              {5, 257, 320, 2500},
                              {40, 128, 768, 777},
                              {1, 31, 4096, 32000},
                              {2, 257, 768, 50257}})
      shapes.push_back(more);
  }
  for (const Shape& s : shapes) {
    const Case c{.copies = s.copies, .rows = s.rows, .in = s.in, .vocabulary = s.vocabulary};
    double errors[5] = {check(c)};
    Case other = c;
    other.bias = 1;
    other.pad = 8;
    errors[1] = check(other);
    other.bias = 2;
    errors[2] = check(other);
    other = c;
    other.shared = true;
    errors[3] = check(other);
    other = c;
    other.range = s.rows + 3;
    errors[4] = check(other);
    std::printf("%8lld %6lld %6lld %10lld |", (long long)s.copies, (long long)s.rows, (long long)s.in,
                (long long)s.vocabulary);
    for (const double e : errors) std::printf(" %9.2g", e);
    std::printf("\n");
    std::fflush(stdout);
    if (s.rows * s.copies < 3000) check_batch_invariance(c);
    other = c;
    other.bias = 1;
    if (s.rows * s.copies < 300) check_batch_invariance(other);
  }
  check_specials();
}

// ---- times
// ------------------------------------------------------------------------------------------------------

/// logits [rows, padded] in fp32 by the fastest of cuBLASLt's candidates.
struct Product {
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t description;
  cublasLtMatrixLayout_t w, x, y;
  cublasLtMatmulAlgo_t algorithm;
  Array<char> workspace{std::size_t{64} << 20};
  const bf16 *weight, *rows_at;
  float* logits;

  Product(const bf16* weight_at, const bf16* x_at, float* y_at, std::int64_t padded, std::int64_t rows,
          std::int64_t in)
      : weight(weight_at), rows_at(x_at), logits(y_at) {
    must(cublasLtCreate(&handle), "handle");
    must(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
    const cublasOperation_t turned = CUBLAS_OP_T;
    must(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof(turned)),
         "transposed");
    must(cublasLtMatrixLayoutCreate(&w, CUDA_R_16BF, in, padded, in), "layout");
    must(cublasLtMatrixLayoutCreate(&x, CUDA_R_16BF, in, rows, in), "layout");
    must(cublasLtMatrixLayoutCreate(&y, CUDA_R_32F, padded, rows, padded), "layout");
    cublasLtMatmulPreference_t preference;
    must(cublasLtMatmulPreferenceCreate(&preference), "preference");
    const std::uint64_t bytes = workspace.size;
    must(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                              sizeof(bytes)),
         "workspace");
    cublasLtMatmulHeuristicResult_t found[16];
    int count = 0;
    must(cublasLtMatmulAlgoGetHeuristic(handle, description, w, x, y, y, preference, 16, found, &count),
         "candidates");
    double fastest = 1e30;
    for (int i = 0; i < count; ++i) {
      const double time = time_of(1, [&] { run(found[i].algo); });
      if (time < fastest) {
        fastest = time;
        algorithm = found[i].algo;
      }
    }
    cublasLtMatmulPreferenceDestroy(preference);
  }
  void run(const cublasLtMatmulAlgo_t& which) const {
    const float one = 1.0f, zero = 0.0f;
    must(cublasLtMatmul(handle, description, &one, weight, w, rows_at, x, &zero, logits, y, logits, y, &which,
                        workspace.data, workspace.size, nullptr),
         "product");
  }
};

void time_shape(const char* name, std::int64_t copies, std::int64_t rows, std::int64_t in,
                std::int64_t vocabulary, bool old_too, int repeats) {
  const std::int64_t all = copies * rows;
  const std::int64_t padded = stride_of(vocabulary);
  const Array<bf16> x(all * in), weight(padded * in);
  fill<<<2048, 256>>>(x.data, all, in, in, 1, x_scale, 0, period);
  fill<<<2048, 256>>>(weight.data, padded, in, in, 2, 5.0f / std::sqrt(float(in)), 0, period);
  std::vector<std::int32_t> loss_rows, tokens, begins;
  for (std::int64_t i = 0; i < rows; ++i) {
    loss_rows.push_back(static_cast<std::int32_t>(i));
    begins.push_back(static_cast<std::int32_t>(i));
    tokens.push_back(static_cast<std::int32_t>(mix(i) % vocabulary));
  }
  begins.push_back(static_cast<std::int32_t>(rows));
  const Array<std::int32_t> loss_rows_at(loss_rows), tokens_at(tokens), begins_at(begins);
  const Array<float> out(all);
  const Array<std::uint32_t> fault(std::vector<std::uint32_t>{0});
  const Targets targets{loss_rows_at.data, tokens_at.data, begins_at.data, loss_rows_at.data, rows};
  const Matrices answers{out.data, DType::f32, rows, rows};

  const std::int64_t range = std::min(all, (std::int64_t{64} << 20) / 4 / head_sums(vocabulary));
  const Array<float> sums(range * head_sums(vocabulary));
  const auto head_at = [&](std::int64_t first) {
    return Head{.x = x.data + first * in,
                .x_stride = in,
                .weight = weight.data,
                .weight_stride = in,
                .in = in,
                .vocabulary = vocabulary,
                .first = first,
                .count = std::min(range, all - first),
                .copy_rows = rows,
                .rows = rows};
  };
  const auto fused = [&](bool products, bool ends) {
    for (std::int64_t first = 0; first < all; first += range) {
      if (products) must(sum_logits(head_at(first), targets, sums.data, answers, nullptr), "sum_logits");
      if (ends)
        must(answer(head_at(first), targets, sums.data, copies, answers, fault.data, nullptr), "answer");
    }
  };
  const double ends = time_of(repeats, [&] { fused(false, true); });
  const double whole = time_of(repeats, [&] { fused(true, true); });
  const double flops = 2.0 * all * in * vocabulary;
  std::printf("%-16s %7lld %5lld %6lld | %8.3f %8.3f %8.1f", name, (long long)all, (long long)in,
              (long long)vocabulary, whole, ends, flops / whole * 1e-9);
  if (old_too) {
    const std::int64_t most = std::min(all, (std::int64_t{1} << 30) / 4 / padded);
    const Array<float> logits(most * padded);
    const Array<double> totals(most);
    const Product product(weight.data, x.data, logits.data, padded, most, in);
    const auto stored = [&](bool products, bool ends_too) {
      for (std::int64_t first = 0; first + most <= all; first += most) {  // whole ranges, scaled below
        const Logits l{.data = logits.data,
                       .stride = padded,
                       .vocabulary = vocabulary,
                       .first = first,
                       .count = most,
                       .copy_rows = rows,
                       .rows = rows};
        if (products) product.run(product.algorithm);
        if (!ends_too) continue;
        must(log_sum_exp(l, totals.data, nullptr), "log_sum_exp");
        must(answer(l, totals.data, loss_rows_at.data, tokens_at.data, rows, copies, answers, fault.data,
                    nullptr),
             "answer");
      }
    };
    const double scale = static_cast<double>(all) / (all / most * most);
    const double old_product = scale * time_of(repeats / 2, [&] { stored(true, false); });
    const double old = scale * time_of(repeats / 2, [&] { stored(true, true); });
    std::printf(" | %8.3f %8.3f %8.1f", old, old - old_product, flops / old_product * 1e-9);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void time_all(bool old_too) {
  cudaDeviceProp device;
  must(cudaGetDeviceProperties(&device, 0), "device");
  std::printf("\n%s; ms\n%-16s %7s %5s %6s | %8s %8s %8s | %8s %8s %8s\n", device.name, "", "rows", "in",
              "vocab.", "fused", "answer", "TFLOP/s", "stored", "its sums", "TFLOP/s");
  time_shape("GPT-2 16 x 256", 40, 4096, 768, 50257, old_too, 7);
  time_shape("GPT-2 1 x 128", 40, 128, 768, 50257, old_too, 15);
  time_shape("GPT-2 1 x 1", 40, 1, 768, 50257, old_too, 31);
  time_shape("LLaMA 8 x 128", 40, 1024, 4096, 32000, old_too, 7);
  time_shape("LLaMA 1 x 128", 40, 128, 4096, 32000, old_too, 15);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what != "time" && what != "fused") {
    check_all(what == "small");
    std::printf("%s\n", failures == 0 ? "checks passed" : "CHECKS FAILED");
    std::fflush(stdout);
  }
  if (what != "check" && what != "small") time_all(what != "fused");
  return failures == 0 ? 0 : 1;
}
