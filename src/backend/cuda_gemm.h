#pragma once
// Matrix products by cuBLASLt: y = x W^T over any number of rows, by one algorithm for each (N, K, types),
// chosen and accepted so that a row's bits depend neither on how many rows there are nor on its place among
// them.
#include <cstdint>
#include <map>
#include <vector>

#include "cuda_check.h"
#include "cuda_plan.h"
#include "mezzo/backend/buffer.h"

namespace mezzo {

/// Operands in device memory. Every pointer, and every row, lies on a multiple of 16 bytes.
struct GemmOperands {
  const void* weight = nullptr;  ///< [n, k]
  std::int64_t weight_stride = 0;
  const void* x = nullptr;  ///< [rows, k]
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  void* y = nullptr;  ///< [rows, n]
  std::int64_t y_stride = 0;
};

class Gemm {
 public:
  /// `workspace` is the library's scratch.
  Gemm(cudaStream_t stream, Buffer workspace);

  bool chosen(const GemmShape& shape) const { return algorithms_.contains(shape); }
  /// Chooses the first candidate of the library's ranking for a fixed number of rows (no split-K) that passes
  /// the check: the same rows alone, in other company and at other offsets give the same bits. DeviceError
  /// when none does. `scratch`: GemmCheck(shape).bytes.
  void choose(const GemmShape& shape, const void* weight, std::int64_t weight_stride, void* scratch,
              std::size_t scratch_bytes);
  void run(const GemmShape& shape, const GemmOperands& operands) const;

 private:
  using Algorithm = cublasLtMatmulAlgo_t;
  cublasStatus_t launch(const GemmShape& shape, const GemmOperands& operands,
                        const Algorithm& algorithm) const;
  std::vector<Algorithm> candidates(const GemmShape& shape, std::int64_t weight_stride) const;

  cudaStream_t stream_;
  Buffer workspace_;
  HandleOwner<cublasLtHandle_t, &cublasLtDestroy> handle_;
  std::map<GemmShape, Algorithm> algorithms_;
};

}  // namespace mezzo
