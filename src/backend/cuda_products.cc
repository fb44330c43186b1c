// The cuda backend's products: which way each goes, and the algorithms chosen for them.
#include <algorithm>

#include "cuda_backend.h"
#include "cuda_operands.h"
#include "kernels/cuda/gated.h"

namespace mezzo {
namespace {

static_assert(static_cast<int>(cuda::Curve::silu) == static_cast<int>(Activation::silu) &&
                  static_cast<int>(cuda::Curve::gelu_tanh) == static_cast<int>(Activation::gelu_tanh) &&
                  static_cast<int>(cuda::Curve::gelu_erf) == static_cast<int>(Activation::gelu_erf) &&
                  static_cast<int>(cuda::Curve::relu) == static_cast<int>(Activation::relu),
              "kernels number activations as the interface does");

/// Calls use(row, rows, address) for rows [first, first + count) of all copies of x, as far as they lie one
/// row stride apart at a time.
template <typename Use>
void each_flat(const View& x, std::int64_t first, std::int64_t count, Use use) {
  const std::int64_t last = first + count;
  for (std::int64_t row = first; row < last;) {
    const std::int64_t copy = x.shared() ? 0 : row / x.rows;
    const std::int64_t end = is_flat(x) ? last : std::min(last, (copy + 1) * x.rows);
    const std::int64_t begin = copy * x.probe_stride + (row - copy * x.rows) * x.row_stride;
    use(row, end - row,
        static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(begin) * size_of(x.dtype));
    row = end;
  }
}

}  // namespace

void CudaBackend::product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
                          std::span<const View> y, Epilogue epilogue) {
  check_input("product", product, x);
  const std::vector<ProductOutput> outputs = outputs_of(product, first_part, y, epilogue.gated);
  for (const ProductOutput& output : outputs) {
    const DType dtype = output.y.dtype == DType::f32 ? DType::f32 : dtype_;
    check_view("product", "y", output.y, x.rows, output.y.cols, dtype);
    check_sharing("product", output.y, x);
  }
  const std::size_t past = outputs.back().first + outputs.back().count;
  const ProductRange range = range_of(product, first_part, past - first_part);
  const std::optional<View> whole = plan_.whole_output(product, range, x, outputs, direction_rows_);
  const Way way = plan_.way_of(product, range, epilogue, whole.has_value());
  const GemmShape shape = plan_.shape_of(way, product, range, epilogue, direction_rows_);
  if (way != Way::fused) choose_algorithm(product, shape);
  switch (way) {
    case Way::direct:
      return direct_product(table, product, range, shape, x, *whole, epilogue.activation);
    case Way::fused:
      return fused_product(table, product, range, shape.k, x, *whole, epilogue.activation);
    case Way::gated:
      return gated_product(table, product, range, shape, x, *whole, epilogue.activation);
    case Way::plain:
      return plain_product(table, product, range, shape, x, outputs, epilogue);
  }
}

void CudaBackend::fused_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                                std::int64_t columns, const View& x, const View& y, Activation activation) {
  with_tails(table, product, range, x, [&](std::int64_t first, std::int64_t count) {
    each_flat(x, first, count, [&](std::int64_t row, std::int64_t rows, const std::byte* from) {
      MEZZO_CUDA(cuda::multiply_gated({.x = from,
                                       .x_stride = x.row_stride,
                                       .weight = weight_of(product, range),
                                       .weight_stride = product.weight.codes.row_stride,
                                       .rows = rows,
                                       .in = columns,
                                       .cols = y.cols,
                                       .curve = static_cast<cuda::Curve>(activation),
                                       .y = row_of(y, row),
                                       .y_stride = y.row_stride},
                                      stream()));
    });
  });
}

void CudaBackend::direct_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                                 const GemmShape& shape, const View& x, const View& y,
                                 Activation activation) {
  with_tails(table, product, range, x, [&](std::int64_t first, std::int64_t count) {
    multiply(product, range, shape, x, first, count, row_of(y, first), y.row_stride);
  });
  if (activation == Activation::none || activation == Activation::gelu_tanh) return;
  cuda::Matrices all = matrices(y);
  all.copy_stride = 0;  // one matrix of all rows
  MEZZO_CUDA(cuda::activate(all, static_cast<cuda::Curve>(activation), false, copies_on(y, table) * y.rows,
                            y.cols, all, stream()));
}

void CudaBackend::gated_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                                const GemmShape& shape, const View& x, const View& y, Activation activation) {
  const std::int64_t most = scratch_.accumulators.cols * 2 / range.rows;  // two bf16 in the place of a float
  check_scratch("product", "accumulators", scratch_.accumulators,
                std::min(copies_on(x, table) * x.rows, fewest_rows) * range.rows / 2);
  const cuda::Matrices both{.data = scratch_.accumulators.data, .dtype = dtype_, .row_stride = range.rows};
  with_tails(table, product, range, x, [&](std::int64_t begin, std::int64_t rows) {
    for (std::int64_t first = begin; first < begin + rows; first += most) {
      const std::int64_t count = std::min(most, begin + rows - first);
      multiply(product, range, shape, x, first, count, both.data, range.rows);
      const cuda::Matrices to{.data = row_of(y, first), .dtype = y.dtype, .row_stride = y.row_stride};
      MEZZO_CUDA(
          cuda::activate(both, static_cast<cuda::Curve>(activation), true, count, y.cols, to, stream()));
    }
  });
}

void CudaBackend::plain_product(const ProbeTable& table, const Product& product, const ProductRange& range,
                                const GemmShape& shape, const View& x,
                                const std::vector<ProductOutput>& outputs, const Epilogue& epilogue) {
  const std::int64_t stride = aligned_floats(shape.n);
  const bool perturbed = prepare_tails(table, product, range, x);
  const std::int64_t rows = copies_on(x, table) * x.rows;
  const std::int64_t rows_a_range = range_rows("product", stride, rows);
  for (std::int64_t first = 0; first < rows; first += rows_a_range) {
    const std::int64_t count = std::min(rows_a_range, rows - first);
    multiply(product, range, shape, x, first, count, scratch_.accumulators.data, stride);
    for (const ProductOutput& output : outputs) {
      cuda::Finish operands{.base = scratch_.accumulators.as<float>(),
                            .base_stride = stride,
                            .base_rows = x.shared() ? 0 : x.rows,
                            .first = first,
                            .count = count,
                            .column = {},
                            .gated = epilogue.gated,
                            .curve = static_cast<cuda::Curve>(epilogue.activation),
                            .s = perturbed ? scratch_.s.as<float>() : nullptr,
                            .ranks = range.ranks,
                            .b_copy_stride = range.factors,
                            .rows = x.rows,
                            .cols = 0,
                            .y = {}};
      std::int64_t column = 0;
      for (std::size_t i = output.first; i < output.first + output.count; i += epilogue.gated ? 2 : 1) {
        operands.column[0] = column_of(product, range, i);
        if (epilogue.gated) operands.column[1] = column_of(product, range, i + 1);
        operands.cols = product.parts[i].rows;
        operands.y = matrices(output.y.columns(column, operands.cols));
        MEZZO_CUDA(cuda::finish(operands, copies_on(output.y, table), stream()));
        column += operands.cols;
      }
    }
  }
}

void CudaBackend::check_scratch(const char* operation, const char* what, const View& prepared,
                                std::int64_t needed) {
  if (prepared.cols < needed) {
    throw DeviceError("{}: {} need {} elements, but {} were prepared", operation, what, needed,
                      prepared.cols);
  }
}

std::int64_t CudaBackend::range_rows(const char* operation, std::int64_t stride, std::int64_t rows) const {
  check_scratch(operation, "accumulators", scratch_.accumulators, std::min(rows, fewest_rows) * stride);
  return std::min(std::max<std::int64_t>(rows, 1), scratch_.accumulators.cols / stride);
}

const std::byte* CudaBackend::weight_of(const Product& product, const ProductRange& range) const {
  return static_cast<const std::byte*>(product.weight.codes.data) +
         static_cast<std::size_t>(range.row_begin * product.weight.codes.row_stride) * size_of(dtype_);
}

void CudaBackend::check_input(const char* operation, const Product& product, const View& x) const {
  check_view(operation, "x", x, x.rows, product.in(), dtype_);
  check_view(operation, "the weight", product.weight.codes, product.out(), product.in(), dtype_);
  if (!is_aligned(x) || !is_aligned(product.weight.codes)) {
    throw DeviceError("{}: rows of x and of the weight must begin on multiples of {} bytes", operation,
                      vector_bytes);
  }
}

void CudaBackend::choose_algorithm(const Product& product, const GemmShape& shape) {
  if (gemm_->chosen(shape)) return;
  const std::int64_t direction_blocks =
      shape.k > product.in() ? columns_of(product, direction_rows_).direction_blocks : 0;
  const std::int64_t rows = searched_rows(shape, direction_blocks, direction_rows_);
  const Buffer scratch = allocate(Gemm::search_bytes(shape, rows));
  gemm_->choose(shape, rows, scratch.data(), scratch.bytes());
}

void CudaBackend::multiply(const Product& product, const ProductRange& range, const GemmShape& shape,
                           const View& x, std::int64_t first, std::int64_t count, void* y,
                           std::int64_t y_stride) const {
  each_flat(x, first, count, [&](std::int64_t row, std::int64_t rows, const std::byte* from) {
    gemm_->run(shape, {.weight = weight_of(product, range),
                       .weight_stride = product.weight.codes.row_stride,
                       .x = from,
                       .x_stride = x.row_stride,
                       .rows = rows,
                       .y = static_cast<std::byte*>(y) +
                            static_cast<std::size_t>((row - first) * y_stride) * size_of(shape.out),
                       .y_stride = y_stride,
                       .bias = product.bias ? static_cast<const std::byte*>(product.bias.data) +
                                                  static_cast<std::size_t>(range.row_begin) *
                                                      size_of(product.bias.dtype)
                                            : nullptr});
  });
}

cuda::LowRanks CudaBackend::low_ranks(const Product& product, std::size_t first, std::size_t count,
                                      std::int64_t row_begin) {
  cuda::LowRanks tails;
  std::int64_t ranks = 0;
  for (std::size_t i = first; i < first + count; ++i) {
    const ProductPart& part = product.parts[i];
    if (part.tail() == nullptr) continue;
    if (tails.count == cuda::most_tails) {
      throw DeviceError("product {}: more than {} tails", product.name, cuda::most_tails);
    }
    const LowRankTail& tail = *part.tail();
    tails.tail[tails.count++] = {.a = tail.a.as<float>(),
                                 .b = tail.b.as<float>(),
                                 .a_noise = tail.a_noise,
                                 .b_noise = tail.b_noise,
                                 .rank_begin = ranks,
                                 .rank = tail.a.rows,
                                 .scaling = tail.scaling,
                                 .row_begin = part.row_begin - row_begin,
                                 .rows = part.rows};
    ranks += tail.a.rows;
  }
  return tails;
}

void CudaBackend::with_tails(const ProbeTable& table, const Product& product, const ProductRange& range,
                             const View& x,
                             const std::function<void(std::int64_t first, std::int64_t count)>& each_range) {
  if (range.ranks == 0) {
    each_range(0, copies_on(x, table) * x.rows);
    return;
  }
  if (table.device.data() == nullptr)
    throw DeviceError("product {}: the probes were not uploaded", product.name);
  const DeviceTable device(table);
  const DirectionBlocks direction_blocks(table.probes);
  const cuda::TailColumns columns = columns_of(product, direction_rows_);
  const cuda::LowRanks tails = low_ranks(product, 0, product.parts.size(), range.row_begin);
  check_scratch("product", "planes of factors", scratch_.planes,
                cuda::factor_elements(columns.ranks, product.in(), direction_blocks.count()));
  // As few ranges as there is room for, and those alike.
  const std::int64_t ranges =
      (direction_blocks.count() + columns.direction_blocks - 1) / columns.direction_blocks;
  const std::int64_t blocks_a_range = (direction_blocks.count() + ranges - 1) / ranges;
  MEZZO_CUDA(cuda::project_factors(tails, columns.ranks, product.in(), table.noise, device.probes,
                                   device.first_probe, direction_blocks.count(), scratch_.planes.data,
                                   stream()));
  MEZZO_CUDA(cuda::project_columns(matrices(x), x.rows, product.in(), table.count(), tails, columns,
                                   device.probes, device.direction_block, blocks_a_range,
                                   scratch_.planes.data, stream()));
  auto* const weight = const_cast<std::byte*>(weight_of(product, range));
  for (std::int64_t direction_block = 0; direction_block < direction_blocks.count();
       direction_block += blocks_a_range) {
    const std::int64_t past = std::min(direction_block + blocks_a_range, direction_blocks.count());
    MEZZO_CUDA(cuda::expand(weight, product.weight.codes.row_stride, range.rows, product.in(), tails, columns,
                            table.noise, device.probes, device.first_probe + direction_block,
                            past - direction_block, stream()));
    const std::int64_t first = direction_blocks.first[static_cast<std::size_t>(direction_block)] * x.rows;
    const std::int64_t last = direction_blocks.first[static_cast<std::size_t>(past)] * x.rows;
    each_range(first, last - first);
  }
}

bool CudaBackend::prepare_tails(const ProbeTable& table, const Product& product, const ProductRange& range,
                                const View& x) {
  if (range.ranks == 0) return false;
  const std::int64_t copies = table.count();
  if (table.device.data() == nullptr)
    throw DeviceError("product {}: the probes were not uploaded", product.name);
  check_scratch("product", "factors", scratch_.factors, copies * range.factors);
  check_scratch("product", "tails", scratch_.s, copies * x.rows * range.ranks);
  const DeviceTable device(table);
  const bool apart = dtype_ == DType::bf16 && product.in() % unit_columns == 0;
  auto* const factors = scratch_.factors.as<float>();
  cuda::Factors some;
  const auto launch = [&] {
    MEZZO_CUDA(cuda::perturb(some, table.noise, device.probes, copies, factors, range.factors, stream()));
    some.count = 0;
  };
  for (const TailPlace& place : range.tails) {
    if (place.tail == nullptr) continue;
    const LowRankTail& tail = *place.tail;
    if (!apart) {
      some.factor[some.count++] = {.value = tail.a.as<float>(),
                                   .tensor = tail.a_noise,
                                   .unscaled = tail.outer,
                                   .count = tail.a.rows * tail.a.cols,
                                   .begin = place.rank_begin * product.in()};
    }
    some.factor[some.count++] = {.value = tail.b.as<float>(),
                                 .tensor = tail.b_noise,
                                 .count = tail.b.rows * tail.b.cols,
                                 .begin = place.b_begin};
    if (some.count + 2 > cuda::most_factors) launch();
  }
  if (some.count > 0) launch();
  auto* const s = scratch_.s.as<float>();
  if (apart) {
    const std::int64_t direction_blocks = DirectionBlocks(table.probes).count();
    check_scratch("product", "planes of factors", scratch_.planes,
                  cuda::factor_elements(range.ranks, product.in(), direction_blocks));
    const cuda::LowRanks tails = low_ranks(product, range.first, range.count, range.row_begin);
    MEZZO_CUDA(cuda::project_factors(tails, range.ranks, product.in(), table.noise, device.probes,
                                     device.first_probe, direction_blocks, scratch_.planes.data, stream()));
    MEZZO_CUDA(cuda::project_apart(matrices(x), x.rows, product.in(), copies, tails, range.ranks,
                                   device.probes, device.direction_block, scratch_.planes.data, s, stream()));
  } else {
    MEZZO_CUDA(
        cuda::project(matrices(x), x.rows, x.cols, factors, range.factors, range.ranks, copies, s, stream()));
  }
  return true;
}

cuda::Column CudaBackend::column_of(const Product& product, const ProductRange& range,
                                    std::size_t part) const {
  const std::int64_t row = product.parts[part].row_begin;
  const TailPlace& place = range.tails[part - range.first];
  cuda::Column column{.begin = row - range.row_begin,
                      .bias = product.bias ? static_cast<const std::byte*>(product.bias.data) +
                                                 static_cast<std::size_t>(row) * size_of(product.bias.dtype)
                                           : nullptr,
                      .bias_dtype = product.bias.dtype};
  if (place.tail != nullptr) {
    column.rank = place.rank;
    column.rank_begin = place.rank_begin;
    column.b = scratch_.factors.as<float>() + place.b_begin;
    column.scaling = place.tail->scaling;
  }
  return column;
}

}  // namespace mezzo
