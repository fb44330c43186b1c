#include "cuda_plan.h"

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::int64_t most_accumulators = std::int64_t{64} << 20;  // fp32 scratch of a product: 256 MiB

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

std::int64_t aligned_stride(std::int64_t cols, DType dtype) {
  const auto unit = static_cast<std::int64_t>(vector_bytes / size_of(dtype));
  return (cols + unit - 1) / unit * unit;
}

}  // namespace

GemmCheck::GemmCheck(const GemmShape& shape)
    : check_rows(shape.n > 32768 ? 390 : 1030),  // a vocabulary's y is wide
      x_stride(aligned_stride(shape.k, shape.in)),
      y_stride(aligned_stride(shape.n, shape.out)) {
  const auto rows = static_cast<std::size_t>(check_rows);
  const std::size_t x_bytes = round_up(rows * static_cast<std::size_t>(x_stride) * size_of(shape.in));
  const std::size_t y_bytes = round_up(rows * static_cast<std::size_t>(y_stride) * size_of(shape.out));
  y = x_bytes;
  y_again = y + y_bytes;
  differences = y_again + y_bytes;
  bytes = differences + 256;
}

ProductRange range_of(const Product& product, std::size_t first, std::size_t count) {
  ProductRange range;
  range.first = first;
  range.count = count;
  range.row_begin = product.parts[first].row_begin;
  for (std::size_t i = first; i < first + count; ++i) {
    const ProductPart& part = product.parts[i];
    if (part.row_begin != range.row_begin + range.rows) {
      throw DeviceError("product {}: part {} does not begin where part {} ends", product.name, i, i - 1);
    }
    range.rows += part.rows;
    TailPlace place;
    if (part.tail) {
      place = {.tail = &*part.tail, .rank = part.tail->a.rows, .rank_begin = range.ranks};
      range.ranks += place.rank;
    }
    range.tails.push_back(place);
  }
  range.factors = range.ranks * product.in();  // the As, stacked; the Bs behind them
  for (std::size_t i = 0; i < count; ++i) {
    range.tails[i].b_begin = range.factors;
    range.factors += range.tails[i].rank * product.parts[first + i].rows;
  }
  return range;
}

std::vector<std::pair<std::size_t, std::size_t>> product_ranges(const Product& product) {
  const std::size_t parts = product.parts.size();
  std::vector<std::pair<std::size_t, std::size_t>> ranges{{0, parts}};
  if (parts > 1) {
    ranges.emplace_back(0, 1);
    ranges.emplace_back(1, parts - 1);
  }
  return ranges;
}

void CudaSizes::grow_to(const CudaSizes& other) {
  probes = std::max(probes, other.probes);
  widest = std::max(widest, other.widest);
  accumulators = std::max(accumulators, other.accumulators);
  factors = std::max(factors, other.factors);
  s = std::max(s, other.s);
  totals = std::max(totals, other.totals);
  check = std::max(check, other.check);
}

CudaScratch lay_out(const CudaSizes& sizes, Arena& arena) {
  const auto take = [&](DType dtype, std::int64_t count) { return arena.take(dtype, 0, 1, count, count); };
  // The check and the accumulators are never in use together.
  const std::size_t mark = arena.mark();
  CudaScratch scratch;
  scratch.check = take(DType::f32, (sizes.check + 3) / 4);
  const std::size_t checked = arena.mark();
  arena.release_to(mark);
  scratch.accumulators = take(DType::f32, sizes.accumulators);
  if (arena.mark() < checked)
    take(DType::f32, static_cast<std::int64_t>((checked - arena.mark()) / sizeof(float)));
  scratch.factors = take(DType::f32, sizes.probes * sizes.factors);
  scratch.s = take(DType::f32, sizes.s);
  scratch.totals = take(DType::f64, sizes.totals);
  return scratch;
}

std::size_t CudaPlan::scratch_bytes(const Workload& workload) const {
  Arena arena;
  lay_out(sizes_of(workload), arena);
  return arena.high_water();
}

CudaSizes CudaPlan::sizes_of(const Workload& workload) const {
  CudaSizes sizes{.probes = workload.probes};
  const std::int64_t rows = workload.probes * workload.largest.tokens;
  for (const Product* product : workload.products) {
    for (const auto& [first, count] : product_ranges(*product)) {
      const ProductRange range = range_of(*product, first, count);
      sizes.factors = std::max(sizes.factors, range.factors);
      sizes.s = std::max(sizes.s, rows * range.ranks);
      for (const DType out : {DType::f32, dtype_}) {
        const GemmCheck check({.n = range.rows, .k = product->in(), .in = dtype_, .out = out});
        sizes.check = std::max(sizes.check, static_cast<std::int64_t>(check.bytes));
      }
    }
    sizes.widest = std::max(sizes.widest, aligned_floats(product->out()));
  }
  sizes.accumulators = std::min(rows * sizes.widest, std::max(most_accumulators, fewest_rows * sizes.widest));
  sizes.totals = workload.probes * workload.largest.reads;
  return sizes;
}

std::int64_t CudaPlan::aligned_elements(std::int64_t cols) const { return aligned_stride(cols, dtype_); }

}  // namespace mezzo
