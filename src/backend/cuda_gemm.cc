#include "cuda_gemm.h"

#include <array>
#include <utility>

#include "kernels/cuda/rows.h"

namespace mezzo {
namespace {

// Fixed: what is chosen must not depend on a run's rows, which differ with the number of ranks.
constexpr std::int64_t nominal_rows = 4096;
constexpr int most_candidates = 32;

using Description = HandleOwner<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>;
using Layout = HandleOwner<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;
using Preference = HandleOwner<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>;

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// fp32 products are fp32 throughout: no TF32.
Description describe() {
  cublasLtMatmulDesc_t raw = nullptr;
  MEZZO_CUBLAS(cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  Description description(raw);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  MEZZO_CUBLAS(
      cublasLtMatmulDescSetAttribute(raw, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
  return description;
}

/// The library is column-major: a row-major matrix is its own transpose there, [cols, rows] with the row
/// stride between columns.
Layout layout(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  cublasLtMatrixLayout_t raw = nullptr;
  MEZZO_CUBLAS(cublasLtMatrixLayoutCreate(&raw, type_of(dtype), static_cast<std::uint64_t>(cols),
                                          static_cast<std::uint64_t>(rows), stride));
  return Layout(raw);
}

}  // namespace

Gemm::Gemm(cudaStream_t stream, Buffer workspace) : stream_(stream), workspace_(std::move(workspace)) {
  cublasLtHandle_t handle = nullptr;
  MEZZO_CUBLAS(cublasLtCreate(&handle));
  handle_.reset(handle);
}

std::vector<Gemm::Algorithm> Gemm::candidates(const GemmShape& shape, std::int64_t weight_stride) const {
  const GemmCheck sizes(shape);
  const Description description = describe();
  const Layout w = layout(shape.in, shape.n, shape.k, weight_stride);
  const Layout x = layout(shape.in, nominal_rows, shape.k, sizes.x_stride);
  const Layout y = layout(shape.out, nominal_rows, shape.n, sizes.y_stride);
  cublasLtMatmulPreference_t raw = nullptr;
  MEZZO_CUBLAS(cublasLtMatmulPreferenceCreate(&raw));
  const Preference preference(raw);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    MEZZO_CUBLAS(cublasLtMatmulPreferenceSetAttribute(raw, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_.bytes()});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, static_cast<std::uint32_t>(vector_bytes));
  }
  std::array<cublasLtMatmulHeuristicResult_t, most_candidates> found{};
  int count = 0;
  MEZZO_CUBLAS(cublasLtMatmulAlgoGetHeuristic(handle_.get(), description.get(), w.get(), x.get(), y.get(),
                                              y.get(), preference.get(), most_candidates, found.data(),
                                              &count));
  std::vector<Algorithm> algorithms;
  for (int i = 0; i < count; ++i) {
    const auto& result = found[static_cast<std::size_t>(i)];
    std::int32_t split = 1;
    std::size_t written = 0;
    MEZZO_CUBLAS(cublasLtMatmulAlgoConfigGetAttribute(&result.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split,
                                                      sizeof(split), &written));
    if (result.state == CUBLAS_STATUS_SUCCESS && split <= 1) algorithms.push_back(result.algo);
  }
  return algorithms;
}

cublasStatus_t Gemm::launch(const GemmShape& shape, const GemmOperands& o, const Algorithm& algorithm) const {
  const Description description = describe();
  const Layout w = layout(shape.in, shape.n, shape.k, o.weight_stride);
  const Layout x = layout(shape.in, o.rows, shape.k, o.x_stride);
  const Layout y = layout(shape.out, o.rows, shape.n, o.y_stride);
  const float one = 1.0f;
  const float zero = 0.0f;
  return cublasLtMatmul(handle_.get(), description.get(), &one, o.weight, w.get(), o.x, x.get(), &zero, o.y,
                        y.get(), o.y, y.get(), &algorithm, workspace_.data(), workspace_.bytes(), stream_);
}

void Gemm::run(const GemmShape& shape, const GemmOperands& operands) const {
  if (operands.rows == 0) return;
  MEZZO_CUBLAS(launch(shape, operands, algorithms_.at(shape)));
}

void Gemm::choose(const GemmShape& shape, const void* weight, std::int64_t weight_stride, void* scratch,
                  std::size_t scratch_bytes) {
  const GemmCheck sizes(shape);
  const std::int64_t check_rows = sizes.check_rows;
  if (scratch_bytes < sizes.bytes) {
    throw DeviceError("a check of matrix products needs {} bytes, but {} were prepared", sizes.bytes,
                      scratch_bytes);
  }
  auto* const base = static_cast<std::byte*>(scratch);
  auto* const differences = reinterpret_cast<std::uint32_t*>(base + sizes.differences);
  MEZZO_CUDA(cuda::fill_normals(base, shape.in, check_rows * sizes.x_stride, stream_));
  const auto operands = [&](std::int64_t first, std::int64_t rows, std::size_t y) {
    return GemmOperands{.weight = weight,
                        .weight_stride = weight_stride,
                        .x = base + static_cast<std::size_t>(first * sizes.x_stride) * size_of(shape.in),
                        .x_stride = sizes.x_stride,
                        .rows = rows,
                        .y = base + y + static_cast<std::size_t>(first * sizes.y_stride) * size_of(shape.out),
                        .y_stride = sizes.y_stride};
  };
  // Few rows, odd ones, whole tiles and all but one; at the start, in the middle of tiles and across them.
  struct Range {
    std::int64_t first, rows;
  };
  const std::array<Range, 9> ranges{{{0, 1},
                                     {1, 1},
                                     {5, 2},
                                     {17, 31},
                                     {64, 64},
                                     {100, 128},
                                     {129, 257},
                                     {31, check_rows - 64},
                                     {1, check_rows - 1}}};

  const std::vector<Algorithm> tried = candidates(shape, weight_stride);
  for (const Algorithm& algorithm : tried) {
    if (launch(shape, operands(0, check_rows, sizes.y), algorithm) != CUBLAS_STATUS_SUCCESS) continue;
    MEZZO_CUDA(cudaMemsetAsync(differences, 0, sizeof(std::uint32_t), stream_));
    bool runs = true;
    for (const Range& range : ranges) {
      const GemmOperands part = operands(range.first, range.rows, sizes.y_again);
      runs = runs && launch(shape, part, algorithm) == CUBLAS_STATUS_SUCCESS;
      if (!runs) break;
      MEZZO_CUDA(cuda::count_differences(part.y, operands(range.first, range.rows, sizes.y).y, range.rows,
                                         shape.n * static_cast<std::int64_t>(size_of(shape.out)),
                                         sizes.y_stride * static_cast<std::int64_t>(size_of(shape.out)),
                                         differences, stream_));
    }
    std::uint32_t found = 0;
    MEZZO_CUDA(cudaMemcpyAsync(&found, differences, sizeof(found), cudaMemcpyDeviceToHost, stream_));
    MEZZO_CUDA(cudaStreamSynchronize(stream_));
    if (runs && found == 0) {
      algorithms_.emplace(shape, algorithm);
      return;
    }
  }
  throw DeviceError(
      "none of {} algorithms of cuBLASLt for products of {} x {} ({} to {}) gives a row the same bits at any "
      "number "
      "of rows",
      tried.size(), shape.n, shape.k, name_of(shape.in), name_of(shape.out));
}

}  // namespace mezzo
