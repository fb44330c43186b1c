#pragma once
// What the cuda backend takes of a card's memory: arithmetic on shapes alone, built with and without CUDA.
#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "mezzo/backend/backend.h"

namespace mezzo {

inline constexpr std::size_t vector_bytes = 16;   ///< what products want every row to be a multiple of
inline constexpr std::int64_t fewest_rows = 256;  ///< of a product's rows at a time, however wide they are

/// What an algorithm is chosen for.
struct GemmShape {
  std::int64_t n = 0;  ///< columns of y
  std::int64_t k = 0;  ///< columns of x
  DType in = DType::f32;
  DType out = DType::f32;
  auto operator<=>(const GemmShape&) const = default;
};

/// What Gemm::choose needs beside the weight: x, y twice, and a counter, in this order.
struct GemmCheck {
  explicit GemmCheck(const GemmShape& shape);

  std::int64_t check_rows, x_stride, y_stride;
  std::size_t y, y_again, differences, bytes;  ///< x is at 0
};

/// One tail of the product in flight.
struct TailPlace {
  const LowRankTail* tail = nullptr;
  std::int64_t rank = 0;
  std::int64_t rank_begin = 0;  ///< its columns of s, its rows of the stacked A
  std::int64_t b_begin = 0;     ///< its B among a probe's factors
};

/// The parts [first, first + count) of a product and their tails.
struct ProductRange {
  std::size_t first = 0;
  std::size_t count = 0;
  std::int64_t row_begin = 0;  ///< of the weight
  std::int64_t rows = 0;
  std::vector<TailPlace> tails;  ///< of each part; without a tail: null
  std::int64_t ranks = 0;        ///< of all
  std::int64_t factors = 0;      ///< floats of a probe
};
ProductRange range_of(const Product& product, std::size_t first, std::size_t count);
/// (first, count) of the parts that the model asks for in one go: all, the first (q of the rows that are
/// read), the others.
std::vector<std::pair<std::size_t, std::size_t>> product_ranges(const Product& product);

/// fp32 elements of an aligned row.
inline std::int64_t aligned_floats(std::int64_t cols) { return (cols + 3) / 4 * 4; }

/// What scratch has to hold, in elements.
struct CudaSizes {
  std::int64_t probes = 0;
  std::int64_t widest = 0;        ///< columns of a product's accumulators
  std::int64_t accumulators = 0;  ///< fp32
  std::int64_t factors = 0;       ///< fp32, a probe
  std::int64_t s = 0;             ///< fp32
  std::int64_t totals = 0;        ///< fp64
  std::int64_t check = 0;         ///< bytes

  void grow_to(const CudaSizes& other);
};

struct CudaScratch {
  View accumulators;  ///< W x of a range of rows, fp32
  View factors;       ///< [probes, factors]: A and B with their noise
  View s;             ///< [probes, rows, ranks]
  View totals;        ///< of the head's rows, fp64
  View check;         ///< bytes for accepting algorithms
};
CudaScratch lay_out(const CudaSizes& sizes, Arena& arena);

class CudaPlan final : public DevicePlan {
 public:
  explicit CudaPlan(bool fp32) : dtype_(fp32 ? DType::f32 : DType::bf16) {}

  std::string name() const override { return "cuda"; }
  DType weight_dtype() const override { return dtype_; }
  DType activation_dtype() const override { return dtype_; }
  DType residual_dtype() const override { return DType::f32; }
  std::int64_t input_stride(const Product& product) const override { return aligned_elements(product.in()); }
  std::int64_t weight_stride(std::int64_t in, bool) const override { return aligned_elements(in); }
  std::size_t scratch_bytes(const Workload& workload) const override;

  CudaSizes sizes_of(const Workload& workload) const;

 private:
  std::int64_t aligned_elements(std::int64_t cols) const;

  DType dtype_;
};

}  // namespace mezzo
