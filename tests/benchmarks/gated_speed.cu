// Checks multiply_gated (kernels/cuda/gated.h) against sums in fp64 and for batch invariance, then
// times it beside cuBLASLt's product and activate().
// usage: gated_speed [check|small|time]; small: few checks, for a sanitizer. Exit 1: a check failed.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/gated.h"
#include "random_rows.cuh"

namespace {

using namespace mezzo;
using namespace mezzo::cuda;
using bf16 = __nv_bfloat16;

struct Sizes {
  std::int64_t rows, in, cols;
  Curve curve;
};

double curved(Curve curve, double x) {
  switch (curve) {
    case Curve::silu:
      return x / (1.0 + std::exp(-x));
    case Curve::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
    case Curve::gelu_erf:
      return 0.5 * x * std::erfc(-0.70710678118654752 * x);
    case Curve::relu:
      return x < 0.0 ? 0.0 : x;
    case Curve::none:
      break;
  }
  return x;
}

GatedProduct operands(const Sizes& s, const Array<bf16>& x, const Array<bf16>& weight, const Array<bf16>& y,
                      std::int64_t stride, std::int64_t y_stride) {
  return {.x = x.data,
          .x_stride = stride,
          .weight = weight.data,
          .weight_stride = stride,
          .rows = s.rows,
          .in = s.in,
          .cols = s.cols,
          .curve = s.curve,
          .y = y.data,
          .y_stride = y_stride};
}

/// y [rows, cols] of rows that begin with the seed's row `shift`.
std::vector<bf16> product(const Sizes& s, std::int64_t shift) {
  const std::int64_t stride = (s.in + 7) / 8 * 8 + 8;
  const std::int64_t y_stride = s.cols + 8;
  const Array<bf16> x(s.rows * stride), weight(2 * s.cols * stride);
  fill<<<256, 128>>>(x.data, s.rows, s.in, stride, 1, 1.0f, shift);
  fill<<<256, 128>>>(weight.data, 2 * s.cols, s.in, stride, 2, 4.0f / std::sqrt(float(s.in)), 0);
  const Array<bf16> y(std::vector<bf16>(s.rows * y_stride, __float2bfloat16_rn(77.0f)));
  must(multiply_gated(operands(s, x, weight, y, stride, y_stride), nullptr), "multiply_gated");
  must(cudaDeviceSynchronize(), "multiply_gated");
  const std::vector<bf16> padded = y.read();
  std::vector<bf16> result;
  for (std::int64_t i = 0; i < s.rows; ++i) {
    result.insert(result.end(), &padded[i * y_stride], &padded[i * y_stride] + s.cols);
    for (std::int64_t j = s.cols; j < y_stride; ++j) {
      if (__bfloat162float(padded[i * y_stride + j]) == 77.0f) continue;
      std::printf("FAILED: written behind the columns\n");
      std::exit(1);
    }
  }
  return result;
}

int failures = 0;

void expect(bool right, const Sizes& s, const char* what) {
  if (right) return;
  ++failures;
  std::printf("FAILED: %s (%lld x %lld, %lld columns, curve %d)\n", what, static_cast<long long>(s.rows),
              static_cast<long long>(s.in), static_cast<long long>(s.cols), static_cast<int>(s.curve));
}

/// Against fp64: y is rounded to bf16 once, and sums of such sizes may be off by as much as is added to that.
void check(const Sizes& s) {
  const std::vector<bf16> y = product(s, 0);
  const auto factor = [&](std::uint64_t seed, std::int64_t row, std::int64_t k) {
    const float scale = seed == 1 ? 1.0f : 4.0f / std::sqrt(float(s.in));
    return double{__bfloat162float(__float2bfloat16_rn(scale * value(seed, row, k)))};
  };
  double worst = 0.0;
  for (std::int64_t i = 0; i < s.rows; i += std::max<std::int64_t>(1, s.rows / 37)) {
    for (std::int64_t j = 0; j < s.cols; j += std::max<std::int64_t>(1, s.cols / 101)) {
      double gate = 0.0, up = 0.0;
      for (std::int64_t k = 0; k < s.in; ++k) {
        gate += factor(1, i, k) * factor(2, j, k);
        up += factor(1, i, k) * factor(2, s.cols + j, k);
      }
      const double wanted = curved(s.curve, gate) * up;
      const double got = __bfloat162float(y[i * s.cols + j]);
      const double error = std::abs(got - wanted) / (std::abs(wanted) * 0x1p-8 + 3e-5);
      if (!(error <= worst)) worst = error;
    }
  }
  expect(worst < 1.1, s, "error against fp64");

  // The same rows among fewer, begun elsewhere, and each alone.
  for (const std::int64_t shift : {std::int64_t{1}, std::int64_t{17}, s.rows - 1}) {
    if (shift <= 0 || shift >= s.rows) continue;
    Sizes part = s;
    part.rows = s.rows - shift;
    const std::vector<bf16> some = product(part, shift);
    expect(std::memcmp(some.data(), &y[shift * s.cols], some.size() * sizeof(bf16)) == 0, s,
           "bits among fewer");
    part.rows = 1;
    const std::vector<bf16> one = product(part, shift);
    expect(std::memcmp(one.data(), &y[shift * s.cols], one.size() * sizeof(bf16)) == 0, s, "bits alone");
  }
}

void check_all(bool small) {
  for (const std::int64_t rows : {1, 31, 33, 257, 700}) {
    for (const std::int64_t in : {8, 64, 80, 257, 784}) {
      for (const std::int64_t cols : {8, 128, 136, 264}) {
        if (small && (rows == 31 || in > 80 || cols == 8)) continue;
        check({rows, in, cols, Curve::silu});
      }
    }
  }
  for (const Curve curve : {Curve::none, Curve::gelu_tanh, Curve::gelu_erf, Curve::relu})
    check({33, 80, 136, curve});
}

// ---- times

constexpr int weights = 3;  // in turn, more than the cache holds

struct Times {
  double product, activation, together, fused;
};

Times time_shape(std::int64_t rows, std::int64_t in, std::int64_t cols, std::int64_t tail) {
  const std::int64_t columns = in + tail;
  const std::int64_t stride = in + 192;
  const Array<bf16> x(rows * stride), both(rows * 2 * cols), y(rows * cols);
  fill<<<2048, 256>>>(x.data, rows, columns, stride, 1, 1.0f, 0);
  std::vector<Array<bf16>> weight;
  for (int i = 0; i < weights; ++i) {
    weight.emplace_back(2 * cols * stride);
    fill<<<2048, 256>>>(weight.back().data, 2 * cols, columns, stride, 2 + i, 0.02f, 0);
  }
  constexpr std::size_t workspace_bytes = std::size_t{64} << 20;
  const Array<char> workspace(workspace_bytes);
  cublasLtHandle_t handle;
  must(cublasLtCreate(&handle), "handle");
  cublasLtMatmulDesc_t description;
  must(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  must(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                      sizeof transposed),
       "description");
  cublasLtMatrixLayout_t w, a, c;
  must(cublasLtMatrixLayoutCreate(&w, CUDA_R_16BF, columns, 2 * cols, stride), "layout");
  must(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, columns, rows, stride), "layout");
  must(cublasLtMatrixLayoutCreate(&c, CUDA_R_16BF, 2 * cols, rows, 2 * cols), "layout");
  cublasLtMatmulPreference_t preference;
  must(cublasLtMatmulPreferenceCreate(&preference), "preference");
  must(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &workspace_bytes, sizeof workspace_bytes),
       "preference");
  cublasLtMatmulHeuristicResult_t found[48];
  int count = 0;
  must(cublasLtMatmulAlgoGetHeuristic(handle, description, w, a, c, c, preference, 48, found, &count),
       "heuristic");
  const float one = 1.0f, zero = 0.0f;
  const int rounds = rows > 10000 ? 2 * weights : 8 * weights;
  const auto multiply = [&](int i, int round) {
    must(cublasLtMatmul(handle, description, &one, weight[round % weights].data, w, x.data, a, &zero,
                        both.data, c, both.data, c, &found[i].algo, workspace.data, workspace_bytes, nullptr),
         "cublasLt");
  };
  const auto activate_both = [&] {
    must(activate({both.data, DType::bf16, 2 * cols, 0}, Curve::silu, true, rows, cols,
                  {y.data, DType::bf16, cols, 0}, nullptr),
         "activate");
  };
  const auto time_rounds = [&](auto call) {
    return time_of(3,
                   [&] {
                     for (int round = 0; round < rounds; ++round) call(round);
                   }) /
           rounds;
  };
  Times best = {1e9, 1e9, 1e9, 1e9};
  int fastest = 0;
  for (int i = 0; i < count; ++i) {
    const double t = time_rounds([&](int round) { multiply(i, round); });
    if (t < best.product) best.product = t, fastest = i;
  }
  const Sizes s = {rows, columns, cols, Curve::silu};
  for (int turn = 0; turn < 3; ++turn) {  // in turn: the card's clock moves
    best.product = std::min(best.product, time_rounds([&](int round) { multiply(fastest, round); }));
    best.activation = std::min(best.activation, time_rounds([&](int) { activate_both(); }));
    best.together = std::min(best.together, time_rounds([&](int round) {
                               multiply(fastest, round);
                               activate_both();
                             }));
    best.fused = std::min(best.fused, time_rounds([&](int round) {
                            GatedProduct o = operands(s, x, weight[round % weights], y, stride, cols);
                            must(multiply_gated(o, nullptr), "multiply_gated");
                          }));
  }
  must(cublasLtDestroy(handle), "handle");
  return best;
}

void time_all() {
  std::printf("  rows     in   cols | cuBLASLt ms TFLOP/s  activate  together |  fused ms TFLOP/s  ratio\n");
  struct Shape {
    std::int64_t rows, in, cols, tail;
  };
  for (const Shape& s :
       {Shape{5120, 4096, 11008, 0}, Shape{5120, 4096, 11008, 192}, Shape{40960, 4096, 11008, 0},
        Shape{163840, 4096, 11008, 0}, Shape{16384, 2048, 5632, 0}, Shape{1024, 4096, 14336, 0}}) {
    const Times t = time_shape(s.rows, s.in, s.cols, s.tail);
    const double flops = 4e-9 * double(s.rows) * double(s.in + s.tail) * double(s.cols);
    std::printf("%6lld %6lld %6lld | %8.4f %7.0f %10.4f %9.4f | %9.4f %7.0f  %.3f\n",
                static_cast<long long>(s.rows), static_cast<long long>(s.in + s.tail),
                static_cast<long long>(s.cols), t.product, flops / t.product, t.activation, t.together,
                t.fused, flops / t.fused, t.fused / t.together);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what != "time") check_all(what == "small");
  std::printf("%s\n", failures == 0 ? "checks passed" : "CHECKS FAILED");
  std::fflush(stdout);
  if (what != "check" && what != "small") time_all();
  return failures == 0 ? 0 : 1;
}
