#include "cuda_plan.h"

#include <cmath>

#include "kernels/cuda/mixture_limits.h"
#include "kernels/cuda/tiles.h"
#include "mezzo/backend/mixture.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

/// Scratch for W x of a range of rows: in fp32, where a range stays near the cache, and of gate | up in bf16,
/// where it is long enough for products at full speed. Bytes.
constexpr std::int64_t most_accumulators = std::int64_t{64} << 20;
constexpr std::int64_t most_gated = std::int64_t{1} << 30;
constexpr std::int64_t most_scored = std::int64_t{1} << 30;
constexpr std::int64_t most_expert_accumulators = std::int64_t{256} << 20;
constexpr std::int64_t scored_bytes_a_row = 32 << 10;
/// As many as a step of decoding has at least, where speed counts.
constexpr std::int64_t fewest_searched_rows = 256;
/// Columns that low-rank terms may take behind the `in` of x and W, and the rows that a range of direction
/// blocks should have: few columns cost little, few rows run slowly. Twenty directions of rank 16 in two
/// ranges are 192.
constexpr std::int64_t fewest_tail_columns = 128;
constexpr std::int64_t most_tail_columns = 192;
constexpr std::int64_t tail_share = 21;  // of the `in` columns, where that lies between the two
/// Where a direction has so few rows, as in decoding, every range costs more than columns for all do: 16
/// directions of rank 16 are 288.
constexpr std::int64_t decoding_rows = 128;
constexpr std::int64_t most_decoding_columns = 288;
constexpr std::int64_t decoding_share = 14;
constexpr std::int64_t wanted_rows = 8192;
/// What writing W's columns for a range takes, as multiplications in a product meanwhile (H200: 7 us).
constexpr double range_multiplications = 2.3e9;

/// Direction blocks that the columns of so many ranks have room for; `decodes`: where directions have few
/// rows, which is the most there are.
std::int64_t most_direction_blocks(std::int64_t in, std::int64_t ranks, bool decodes) {
  const cuda::TailColumns columns = cuda::tail_columns(ranks, 0);
  const std::int64_t most = decodes
                                ? std::clamp(in / decoding_share, fewest_tail_columns, most_decoding_columns)
                                : std::clamp(in / tail_share, fewest_tail_columns, most_tail_columns);
  return std::max<std::int64_t>(1, (most - columns.base) / columns.block);
}

}  // namespace

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
    if (part.tail() != nullptr) {
      place = {.tail = part.tail(), .rank = part.tail_rank(), .rank_begin = range.ranks};
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
  accumulators = std::max(accumulators, other.accumulators);
  factors = std::max(factors, other.factors);
  planes = std::max(planes, other.planes);
  s = std::max(s, other.s);
  totals = std::max(totals, other.totals);
}

CudaScratch lay_out(const CudaSizes& sizes, Arena& arena) {
  const auto take = [&](DType dtype, std::int64_t count) { return arena.take(dtype, 0, 1, count, count); };
  CudaScratch scratch;
  scratch.accumulators = take(DType::f32, sizes.accumulators);
  scratch.factors = take(DType::f32, sizes.factors);
  scratch.planes = take(DType::bf16, sizes.planes);
  scratch.s = take(DType::f32, sizes.s);
  scratch.totals = take(DType::f64, sizes.totals);
  return scratch;
}

std::int64_t CudaPlan::tail_columns(std::int64_t in, std::int64_t tail_ranks) const {
  if (dtype_ != DType::bf16 || tail_ranks == 0 || in % cuda::inner_step != 0) return 0;
  return cuda::tail_columns(tail_ranks, most_direction_blocks(in, tail_ranks, true)).width();
}

bool CudaPlan::serves(const RoutingRule& rule) const {
  return rule.experts <= cuda::most_experts && rule.chosen <= cuda::most_chosen;
}

bool CudaPlan::tiles_experts(const Product& expert, const Epilogue& epilogue) const {
  if (!runs_tiles_ || expert.bias || expert.in() % unit_columns != 0) return false;
  if (epilogue.gated) return expert.parts.size() == 2 && expert.parts[0].rows % unit_columns == 0;
  return epilogue.activation == Activation::none && expert.out() % unit_columns == 0;
}

std::int64_t CudaPlan::aligned(std::int64_t in) const {
  const auto unit = static_cast<std::int64_t>(vector_bytes / size_of(dtype_));
  return (in + unit - 1) / unit * unit;
}

std::int64_t CudaPlan::input_stride(const Product& product) const {
  if (!takes_columns(product)) return aligned(product.in());
  return product.in() + tail_columns(product.in(), product.tail_ranks());
}

Weight CudaPlan::place_weight(std::int64_t out, std::int64_t in, std::int64_t tail_ranks) const {
  Weight weight{.type = weight_type(), .codes = dense(nullptr, dtype_, out, in)};
  weight.stored_rows = (out + unit_columns - 1) / unit_columns * unit_columns;
  weight.tail_columns = tail_columns(in, tail_ranks);
  weight.codes.row_stride = weight.tail_columns > 0 ? in + weight.tail_columns : aligned(in);
  return weight;
}

cuda::TailColumns columns_of(const Product& product, std::int64_t direction_rows) {
  const std::int64_t rows = std::max<std::int64_t>(direction_rows, 1);
  const std::int64_t ranks = product.tail_ranks();
  // A direction block more costs each row a block of columns, a range less is a writing saved: least at the
  // square root.
  const double a_slot =
      static_cast<double>(rows) * static_cast<double>(product.out() * cuda::tail_columns(ranks, 0).block);
  const std::int64_t cheapest = std::llround(std::sqrt(range_multiplications / a_slot));
  const std::int64_t wanted = std::max((wanted_rows + rows - 1) / rows, cheapest);
  const cuda::TailColumns room =
      cuda::tail_columns(ranks, most_direction_blocks(product.in(), ranks, rows <= decoding_rows));
  if (!product.outer()) return cuda::tail_columns(ranks, std::min(wanted, room.direction_blocks));
  // Without B its columns make room for more directions.
  cuda::TailColumns columns = room;
  columns.base = 0;
  columns.direction_blocks = std::min(wanted, room.width() / room.block);
  return columns;
}

std::optional<View> CudaPlan::whole_output(const Product& product, const ProductRange& range, const View& x,
                                           const std::vector<ProductOutput>& outputs,
                                           std::int64_t direction_rows) const {
  View whole = outputs.front().y;
  for (std::size_t i = 1; i < outputs.size(); ++i) {
    const View& next = outputs[i].y;
    if (next.data != row_of(whole, 0) + static_cast<std::size_t>(whole.cols) * size_of(whole.dtype) ||
        next.dtype != whole.dtype || next.row_stride != whole.row_stride ||
        next.probe_stride != whole.probe_stride) {
      return {};
    }
    whole.cols += next.cols;
  }
  if (whole.dtype != dtype_ || whole.shared() != x.shared() || !is_flat(whole) || !is_aligned(whole))
    return {};
  const std::int64_t columns = range.ranks > 0 ? columns_of(product, direction_rows).width() : 0;
  if (range.ranks > 0 && (x.shared() || !is_flat(x) || x.row_stride < product.in() + columns)) return {};
  return whole;
}

Way CudaPlan::way_of(const Product& product, const ProductRange& range, const Epilogue& epilogue,
                     bool whole) const {
  const auto in_units = [](std::int64_t columns) { return columns % unit_columns == 0; };
  if (!whole || !in_units(range.row_begin) || !in_units(range.rows)) return Way::plain;
  if (range.ranks > 0 && !takes_columns(product)) return Way::plain;
  if (product.bias && (dtype_ != DType::bf16 || product.bias.dtype != dtype_)) return Way::plain;
  if (epilogue.activation != Activation::none && dtype_ != DType::bf16) return Way::plain;
  if (!epilogue.gated) return Way::direct;
  if (dtype_ != DType::bf16 || !in_units(product.parts[range.first].rows)) return Way::plain;
  return runs_tiles_ && !product.bias ? Way::fused : Way::gated;
}

GemmShape CudaPlan::shape_of(Way way, const Product& product, const ProductRange& range,
                             const Epilogue& epilogue, std::int64_t direction_rows) const {
  GemmShape shape{.n = range.rows, .k = product.in(), .in = dtype_, .out = dtype_};
  if (way == Way::plain) {
    shape.out = DType::f32;
    // In whole units of columns where the weight's storage has rows for them: an odd number runs slowly.
    const std::int64_t whole = (range.rows + unit_columns - 1) / unit_columns * unit_columns;
    if (range.row_begin + whole <= product.weight.stored_rows) shape.n = whole;
    return shape;
  }
  if (range.ranks > 0) shape.k += columns_of(product, direction_rows).width();
  const bool gelu = way == Way::direct && epilogue.activation == Activation::gelu_tanh;
  if (product.bias) {
    shape.epilogue = gelu ? GemmEpilogue::bias_gelu_tanh : GemmEpilogue::bias;
  } else if (gelu) {
    shape.epilogue = GemmEpilogue::gelu_tanh;
  }
  return shape;
}

std::vector<GemmShape> CudaPlan::shapes_of(const PlannedProduct& planned, std::int64_t direction_rows,
                                           bool stores_logits) const {
  if (planned.routing) return {};  // by kernels of our own
  const Product& product = *planned.product;
  std::vector<GemmShape> shapes;
  const auto add = [&](Way way, const ProductRange& range) {
    if (way == Way::fused) return;
    shapes.push_back(shape_of(way, product, range, planned.epilogue, direction_rows));
  };
  if (planned.scored) {
    if (!runs_tiles_ || stores_logits) add(Way::plain, range_of(product, 0, product.parts.size()));
    return shapes;
  }
  for (const auto& [first, count] : product_ranges(product)) {
    if (planned.epilogue.gated && count < product.parts.size()) continue;  // asked for in one go
    const ProductRange range = range_of(product, first, count);
    add(way_of(product, range, planned.epilogue, true), range);
    // x may be shared by the probes, and y not; or y is wider.
    if (product.perturbed() || planned.to_fp32) add(way_of(product, range, planned.epilogue, false), range);
  }
  return shapes;
}

std::int64_t searched_rows(const GemmShape& shape, std::int64_t direction_blocks,
                           std::int64_t direction_rows) {
  constexpr std::int64_t usual_direction_blocks = 20;  // of a step
  constexpr std::int64_t most_bytes = std::int64_t{1} << 30;
  const auto bytes = [](std::int64_t cols, DType dtype) {
    return cols * static_cast<std::int64_t>(size_of(dtype));
  };
  const std::int64_t fit = most_bytes / (bytes(shape.k, shape.in) + bytes(shape.n, shape.out));
  const std::int64_t wanted = std::max<std::int64_t>(direction_rows, 1) *
                              (direction_blocks > 0 ? direction_blocks : usual_direction_blocks);
  const std::int64_t most = shape.in == DType::f32 ? 2048 : 65536;
  return std::clamp<std::int64_t>(std::min(wanted, fit), fewest_searched_rows, most);
}

std::size_t CudaPlan::scratch_bytes(const Workload& workload) const {
  Arena arena;
  lay_out(sizes_of(workload), arena);
  return arena.high_water();
}

CudaSizes CudaPlan::sizes_of(const Workload& workload) const {
  CudaSizes sizes;
  const std::int64_t rows = workload.probes * workload.largest.tokens;
  const std::int64_t loss_rows = workload.probes * workload.largest.loss_rows;
  for (const PlannedProduct& planned : workload.products) {
    const Product& product = *planned.product;
    if (planned.routing) {
      const bool apart = product.perturbed() || !tiles_experts(product, planned.epilogue);
      if (!apart) continue;
      const std::int64_t places = rows * planned.routing->chosen;
      const std::int64_t floats = aligned_floats(product.out());
      const std::int64_t most = std::max(fewest_rows, most_expert_accumulators / 4 / floats);
      sizes.accumulators = std::max(sizes.accumulators, std::min(places, most) * floats);
      sizes.s = std::max(sizes.s, places * product.tail_ranks());
      continue;
    }
    if (planned.scored && runs_tiles_) {
      const std::int64_t floats = cuda::head_sums(product.out());
      const std::int64_t most = std::max(fewest_rows, most_accumulators / 4 / floats);
      sizes.accumulators = std::max(sizes.accumulators, std::min(loss_rows, most) * floats);
    }
    const std::int64_t floats = aligned_floats(std::max(product.out(), product.weight.stored_rows));
    const auto range_floats = [&](std::int64_t most_bytes) {
      return std::min(rows, std::max(fewest_rows, most_bytes / 4 / floats)) * floats;
    };
    const bool stores_logits = planned.scored && (!runs_tiles_ || workload.largest.cache);
    // The logits of many rows are worth more room: the head's weight is read again for every range.
    const std::int64_t logits = std::clamp(rows * scored_bytes_a_row, most_accumulators, most_scored);
    sizes.accumulators =
        std::max(sizes.accumulators, range_floats(stores_logits ? logits : most_accumulators));
    const auto way = [&] {
      return way_of(product, range_of(product, 0, product.parts.size()), planned.epilogue, true);
    };
    if (planned.epilogue.gated && way() == Way::gated)
      sizes.accumulators = std::max(sizes.accumulators, range_floats(2 * most_gated) / 2);
    if (!product.perturbed()) continue;
    for (const auto& [first, count] : product_ranges(product)) {
      const ProductRange range = range_of(product, first, count);
      sizes.factors = std::max(sizes.factors, workload.probes * range.factors);
      sizes.s = std::max(sizes.s, rows * range.ranks);
    }
    // In a group that begins and ends anywhere every probe may be of a direction of its own.
    sizes.planes =
        std::max(sizes.planes, cuda::factor_elements(product.tail_ranks(), product.in(), workload.probes));
  }
  if (!runs_tiles_) sizes.totals = loss_rows;
  return sizes;
}

}  // namespace mezzo
