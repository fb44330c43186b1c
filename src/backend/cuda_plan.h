#pragma once
// What the cuda backend takes of a card's memory: arithmetic on shapes alone, built with and without CUDA.
#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "host_backend.h"
#include "kernels/cuda/tail_columns.h"
#include "mezzo/backend/arena.h"
#include "mezzo/backend/backend.h"

namespace mezzo {

inline constexpr std::size_t vector_bytes = 16;   ///< what products want every row to be a multiple of
inline constexpr std::int64_t unit_columns = 8;   ///< that many bytes of bf16
inline constexpr std::int64_t fewest_rows = 256;  ///< of a product's rows at a time, however wide they are

/// What the library does to x W^T before it rounds to y.
enum class GemmEpilogue : std::uint8_t { none, bias, gelu_tanh, bias_gelu_tanh };

// ---- views
/// All rows of all copies lie one row stride apart.
inline bool is_flat(const View& view) {
  return view.shared() || view.probe_stride == view.rows * view.row_stride;
}

/// Row `row` of all copies, one copy after another, of a flat view.
inline std::byte* row_of(const View& view, std::int64_t row) {
  return static_cast<std::byte*>(view.data) +
         static_cast<std::size_t>(row * view.row_stride) * size_of(view.dtype);
}

/// Every row begins on a multiple of what products want.
inline bool is_aligned(const View& view) {
  const auto multiple = [](std::size_t bytes) { return bytes % vector_bytes == 0; };
  const std::size_t size = size_of(view.dtype);
  return multiple(reinterpret_cast<std::uintptr_t>(view.data)) &&
         multiple(static_cast<std::size_t>(view.row_stride) * size) &&
         multiple(static_cast<std::size_t>(view.probe_stride) * size);
}

// ---- products

/// What an algorithm is chosen for.
struct GemmShape {
  std::int64_t n = 0;  ///< columns of y
  std::int64_t k = 0;  ///< columns of x
  DType in = DType::f32;
  DType out = DType::f32;
  GemmEpilogue epilogue = GemmEpilogue::none;
  auto operator<=>(const GemmShape&) const = default;
};

/// How a range of a product runs.
enum class Way : std::uint8_t {
  direct,  ///< by the library straight into y, tails as columns; an activation that it lacks follows in place
  fused,   ///< gate | up and activation(gate) * up by kernels/cuda/gated.h, tails as columns
  gated,   ///< gate | up by the library, some rows at a time, then activation(gate) * up
  plain    ///< W x into fp32, then everything else
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
  std::int64_t accumulators = 0;  ///< fp32
  std::int64_t factors = 0;       ///< fp32, of all probes
  std::int64_t planes = 0;        ///< bf16: the factors of low_rank.h
  std::int64_t s = 0;             ///< fp32
  std::int64_t totals = 0;        ///< fp64

  void grow_to(const CudaSizes& other);
};

struct CudaScratch {
  View accumulators;  ///< W x of a range of rows: fp32, or gate | up in bf16; or the sums over its logits
  View factors;       ///< [probes, factors]: A and B with their noise
  View planes;        ///< [2 + direction_blocks][ranks, padded][in], bf16
  View s;             ///< [probes, rows, ranks]
  View totals;        ///< of the head's rows, fp64, where it is not fused
};
CudaScratch lay_out(const CudaSizes& sizes, Arena& arena);

class CudaPlan final : public DevicePlan {
 public:
  /// card_runs_tiles: the card is one for kernels/cuda/tiles.h. Of a card that is not there that is not
  /// known, and false the larger scratch.
  CudaPlan(bool fp32, bool card_runs_tiles)
      : dtype_(fp32 ? DType::f32 : DType::bf16), runs_tiles_(!fp32 && card_runs_tiles) {}

  std::string name() const override { return "cuda"; }
  DType activation_dtype() const override { return dtype_; }
  DType residual_dtype() const override { return DType::f32; }
  bool serves(const Perturbation& perturbation) const override { return is_tail_or_none(perturbation); }
  bool serves(const Weight& weight) const override {
    return weight.type == weight_type() && weight.residence == Residence::device;
  }
  bool serves(const RoutingRule& rule) const override;
  bool gathers_rows(const Product& expert, const Epilogue& epilogue) const override {
    return epilogue.gated && !expert.perturbed() && tiles_experts(expert, epilogue);
  }
  std::int64_t input_stride(const Product& product) const override;
  Weight place_weight(std::int64_t out, std::int64_t in, std::int64_t tail_ranks) const override;
  std::size_t scratch_bytes(const Workload& workload) const override;

  CudaSizes sizes_of(const Workload& workload) const;
  /// y as one matrix that the library can write, or none: outputs side by side, aligned, of the activations'
  /// type and shared by the probes as x is; with tails x is the probes' own and has room for their columns.
  std::optional<View> whole_output(const Product& product, const ProductRange& range, const View& x,
                                   const std::vector<ProductOutput>& outputs,
                                   std::int64_t direction_rows) const;
  /// `whole`: there is a whole output.
  Way way_of(const Product& product, const ProductRange& range, const Epilogue& epilogue, bool whole) const;
  /// What the library is asked for. `direction_rows`: of a two-sided direction (columns_of).
  GemmShape shape_of(Way way, const Product& product, const ProductRange& range, const Epilogue& epilogue,
                     std::int64_t direction_rows) const;
  /// All that a forward may ask the library for.
  std::vector<GemmShape> shapes_of(const PlannedProduct& planned, std::int64_t direction_rows,
                                   bool stores_logits = false) const;
  /// Whether score() keeps sums over the logits of a range of rows in place of the logits (head.h), and gate
  /// and up are multiplied where they arise (gated.h).
  bool runs_tiles() const { return runs_tiles_; }
  /// Whether the products of a mixture's experts, which are as this one, run by tiles (experts.h).
  bool tiles_experts(const Product& expert, const Epilogue& epilogue) const;
  /// Whether the product's tails go as columns of x and W (kernels/cuda/low_rank.h): W's rows have room for
  /// them, and they may be there at all.
  bool takes_columns(const Product& product) const {
    const std::int64_t wanted = tail_columns(product.in(), product.tail_ranks());
    return wanted > 0 && product.weight.tail_columns >= wanted;
  }

 private:
  WeightType weight_type() const { return dtype_ == DType::f32 ? WeightType::f32 : WeightType::bf16; }
  /// Columns that tails of so many ranks want behind `in`; 0 where none may be there: a row's bits would
  /// depend on its direction block if blocks did not begin on the tensor cores' inner step.
  std::int64_t tail_columns(std::int64_t in, std::int64_t tail_ranks) const;
  std::int64_t aligned(std::int64_t in) const;

  DType dtype_;
  bool runs_tiles_;
};

/// Where the tails of a product that has some lie behind its `in` columns, in a run whose direction blocks
/// have `direction_rows` rows each: as many direction blocks as make enough rows for a product at full speed,
/// more where writing the columns costs more than they do, and no more than place_weight() left room for.
cuda::TailColumns columns_of(const Product& product, std::int64_t direction_rows);

/// Rows over which to choose an algorithm: those of a range of `direction_blocks` blocks, or for 0
/// of a whole step, as far as that is known from the size of a slice alone. Not of a group: a choice must not
/// change with the number of ranks.
std::int64_t searched_rows(const GemmShape& shape, std::int64_t direction_blocks,
                           std::int64_t direction_rows);

}  // namespace mezzo
