#pragma once
// Matrix products by cuBLASLt: y = epilogue(x W^T) over any number of rows, by one algorithm for each shape:
// the fastest of the library's candidates that gives a row the same bits however many rows there are and
// wherever it lies among them.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cuda_check.h"
#include "cuda_plan.h"
#include "mezzo/backend/buffer.h"
#include "mezzo/core/types.h"

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
  const void* bias = nullptr;  ///< [n] of the type of y, where the epilogue has one
};

class Gemm {
 public:
  /// same_bits: no split-K, and an algorithm must pass the check. any_bits: the fastest one, as a yardstick.
  enum class Choice : std::uint8_t { same_bits, any_bits };

  static constexpr std::size_t workspace_bytes = std::size_t{64} << 20;

  /// `workspace` is the library's scratch of workspace_bytes. `store`: a file where choices are kept for
  /// later processes on the same card with the same library; "": none.
  Gemm(cudaStream_t stream, Buffer workspace, Choice choice, std::string store);

  /// Room that choose() needs for x, a weight, y twice and a counter.
  static std::size_t search_bytes(const GemmShape& shape, std::int64_t rows);
  bool chosen(const GemmShape& shape) const { return algorithms_.contains(shape); }
  /// Times the library's candidates over `rows` rows of random data with cold caches and takes the fastest
  /// that passes the check. DeviceError when none does.
  void choose(const GemmShape& shape, std::int64_t rows, void* scratch, std::size_t scratch_bytes);
  void run(const GemmShape& shape, const GemmOperands& operands) const;
  /// How many candidates were timed in the search where they were fewest; none before a search.
  std::optional<int> fewest_candidates() const { return fewest_candidates_; }

  /// The chosen algorithms as text, by shape: part of a run's record.
  std::map<std::string, std::string> record() const;
  /// From here on chooses as `record` says, for the shapes in it whose algorithm still passes the check.
  void keep(const std::map<std::string, std::string>& record);

 private:
  using Algorithm = cublasLtMatmulAlgo_t;
  struct Search;

  cublasStatus_t launch(const GemmShape& shape, const GemmOperands& operands,
                        const Algorithm& algorithm) const;
  std::vector<Algorithm> candidates(const Search& search) const;
  bool passes(const Search& search, const Algorithm& algorithm) const;
  double seconds(const Search& search, const Algorithm& algorithm) const;
  std::string store_key(const GemmShape& shape, std::int64_t rows) const;

  cudaStream_t stream_;
  Buffer workspace_;
  Choice choice_;
  std::string store_;
  std::string card_;
  HandleOwner<cublasLtHandle_t, &cublasLtDestroy> handle_;
  std::map<GemmShape, Algorithm> algorithms_;
  std::map<std::string, std::string> kept_;
  std::optional<int> fewest_candidates_;
};

}  // namespace mezzo
