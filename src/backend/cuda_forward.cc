// The cuda backend's forward but for products: embedding, norms, rotary positions, attention, the head.
#include <algorithm>

#include "cuda_backend.h"
#include "cuda_operands.h"
#include "kernels/cuda/decoding.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/score.h"

namespace mezzo {

void CudaBackend::embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
                        std::int64_t position_offset, View h) {
  check_probes("embed", batch, table);
  check_view("embed", "h", h, batch.tokens.cols, words.cols, plan_.residual_dtype());
  check_sharing("embed", h, batch.tokens);
  check_view("embed", "the words' table", words, words.rows, words.cols, dtype_);
  if (places) check_view("embed", "the positions' table", places, places.rows, words.cols, dtype_);
  MEZZO_CUDA(cuda::embed(matrices(words), words.rows, batch.tokens.as<std::int32_t>(),
                         batch.tokens.probe_stride, matrices(places), places.rows,
                         batch.positions.as<std::int32_t>(), batch.positions.probe_stride, position_offset,
                         h.rows, h.cols, copies_on(h, table), matrices(h), fault(), stream()));
}

void CudaBackend::residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                                const Norm& norm, View x) {
  constexpr const char* operation = "residual_norm";
  const bool of_activations = deltas.empty() && !h_out && h_in.dtype == dtype_;
  check_view(operation, "h_in", h_in, h_in.rows, h_in.cols, of_activations ? dtype_ : plan_.residual_dtype());
  check_view(operation, "x", x, h_in.rows, h_in.cols, dtype_);
  check_sharing(operation, x, h_in);
  if (deltas.size() > 2) throw DeviceError("{}: {} deltas, expected 0 to 2", operation, deltas.size());
  for (const View& delta : deltas) {
    check_view(operation, "a delta", delta, h_in.rows, h_in.cols, dtype_);
    check_sharing(operation, x, delta);
  }
  if (h_out) {
    check_view(operation, "h_out", h_out, h_in.rows, h_in.cols, plan_.residual_dtype());
    if (h_out.shared() != x.shared()) {
      throw DeviceError("{}: h_out and x are the same sum, but only one of them is shared by the probes",
                        operation);
    }
  }
  check_view(operation, "the weight", norm.weight, 1, h_in.cols, DType::f32);
  cuda::ResidualNorm operands{.h_in = matrices(h_in),
                              .delta = {},
                              .deltas = static_cast<int>(deltas.size()),
                              .h_out = matrices(h_out),
                              .layer = norm.kind == NormKind::layer,
                              .weight = norm.weight.as<float>(),
                              .bias = norm.bias.as<float>(),
                              .epsilon = norm.epsilon,
                              .x = matrices(x)};
  for (std::size_t i = 0; i < deltas.size(); ++i) operands.delta[i] = matrices(deltas[i]);
  MEZZO_CUDA(cuda::residual_norm(operands, x.rows, x.cols, copies_on(x, table), stream()));
}

void CudaBackend::norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) {
  const std::int64_t heads = x.cols / head_dim;
  check_view("norm_heads", "x", x, x.rows, heads * head_dim, dtype_);
  check_view("norm_heads", "the weight", norm.weight, 1, head_dim, DType::f32);
  MEZZO_CUDA(cuda::norm_heads({.x = matrices(x),
                               .heads = heads,
                               .head_dim = head_dim,
                               .layer = norm.kind == NormKind::layer,
                               .weight = norm.weight.as<float>(),
                               .bias = norm.bias.as<float>(),
                               .epsilon = norm.epsilon},
                              x.rows, copies_on(x, table), stream()));
}

void CudaBackend::scale(const ProbeTable& table, float factor, View h) {
  check_view("scale", "h", h, h.rows, h.cols, plan_.residual_dtype());
  MEZZO_CUDA(cuda::scale(matrices(h), factor, h.rows, h.cols, copies_on(h, table), stream()));
}

void CudaBackend::soft_cap(const ProbeTable& table, float cap, View x) {
  check_view("soft_cap", "x", x, x.rows, x.cols, x.dtype);
  MEZZO_CUDA(cuda::soft_cap(matrices(x), cap, x.rows, x.cols, copies_on(x, table), stream()));
}

void CudaBackend::gate(const ProbeTable& table, Activation activation, View gate_up, View y) {
  check_view("gate", "y", y, y.rows, y.cols, dtype_);
  check_view("gate", "gate_up", gate_up, y.rows, 2 * y.cols, dtype_);
  check_sharing("gate", y, gate_up);
  MEZZO_CUDA(cuda::gate(matrices(gate_up), static_cast<cuda::Curve>(activation), y.rows, y.cols,
                        copies_on(y, table), matrices(y), stream()));
}

void CudaBackend::split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) {
  const std::int64_t width = 3 * shape.heads * shape.head_dim;
  if (shape.kv_heads != shape.heads)
    throw DeviceError("split_heads: {} heads of keys, expected {}", shape.kv_heads, shape.heads);
  check_view("split_heads", "x", x, x.rows, width, dtype_);
  check_view("split_heads", "out", out, x.rows, width, dtype_);
  check_sharing("split_heads", out, x);
  MEZZO_CUDA(cuda::split_heads(matrices(x), shape.heads, shape.head_dim, x.rows, copies_on(out, table),
                               matrices(out), stream()));
}

void CudaBackend::rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
                         std::int64_t head_dim, View x) {
  const std::int64_t heads = x.cols / head_dim;
  check_view("rotate", "x", x, row_index ? row_index.cols : batch.positions.cols, heads * head_dim, dtype_);
  cuda::Rotation rotation = rotation_of("rotate", rope, head_dim);
  rotation.heads = heads;
  MEZZO_CUDA(cuda::rotate(rotation, integers(batch.positions), batch.positions.cols, integers(row_index),
                          x.rows, copies_on(x, table), matrices(x), fault(), stream()));
}

void CudaBackend::attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                            const Rope* rope, View q, View k, View v, View query_rows, View out) {
  const std::int64_t tokens = batch.tokens.cols;
  const std::int64_t queries = query_rows ? query_rows.cols : tokens;
  check_view("attention", "q", q, queries, shape.heads * shape.head_dim, dtype_);
  check_view("attention", "k", k, tokens, shape.kv_heads * shape.head_dim, dtype_);
  check_view("attention", "v", v, tokens, shape.kv_heads * shape.head_dim, dtype_);
  check_view("attention", "out", out, queries, shape.heads * shape.head_dim, dtype_);
  for (const View& input : {q, k, v}) check_sharing("attention", out, input);
  if (shape.head_dim > 256) throw DeviceError("attention: heads of {}, expected up to 256", shape.head_dim);
  const std::int64_t window = shape.window < batch.shape.longest ? shape.window : 0;  // else it hides nothing
  const cuda::Attention operands{.q = matrices(q),
                                 .k = matrices(k),
                                 .v = matrices(v),
                                 .out = matrices(out),
                                 .offsets = integers(batch.offsets),
                                 .query_rows = integers(query_rows),
                                 .queries = queries,
                                 .sequences = batch.shape.sequences,
                                 .longest = batch.shape.longest,
                                 .heads = shape.heads,
                                 .kv_heads = shape.kv_heads,
                                 .head_dim = shape.head_dim,
                                 .scale = shape.scale,
                                 .window = window,
                                 .soft_cap = shape.soft_cap};
  const bool flash = cuda::flash_attend_fits(operands, card_.sharedMemPerBlockOptin);
  cuda::Rotary rotary;
  if (rope != nullptr) {
    const cuda::Rotation rotation = rotation_of("attention", *rope, shape.head_dim);
    if (flash && cuda::flash_rotary_fits(rotation)) {
      const bool keys_first = cuda::keys_first(operands, copies_on(out, table));
      if (keys_first) rotate(table, batch, *rope, View{}, shape.head_dim, k);
      rotary = {.rotation = rotation,
                .positions = integers(batch.positions),
                .keys = !keys_first,
                .fault = fault()};
    } else {
      rotate(table, batch, *rope, query_rows, shape.head_dim, q);
      rotate(table, batch, *rope, View{}, shape.head_dim, k);
    }
  }
  if (flash) {
    MEZZO_CUDA(cuda::flash_attend(operands, rotary, copies_on(out, table), stream()));
  } else {
    MEZZO_CUDA(cuda::attend(operands, copies_on(out, table), stream()));
  }
}

void CudaBackend::store(const ProbeTable& table, const DeviceBatch& batch, View k, View v,
                        const KeyValues& to) {
  for (const auto& [from, cache] : {std::pair(k, to.k), std::pair(v, to.v)}) {
    check_view("store", "k or v", from, batch.cache_rows.cols, cache.cols, dtype_);
    check_view("store", "the cache", cache, cache.rows, cache.cols, dtype_);
    check_sharing("store", cache, from);
    MEZZO_CUDA(cuda::scatter(matrices(from), integers(batch.cache_rows), from.rows, from.cols,
                             copies_on(cache, table), matrices(cache), cache.rows, fault(), stream()));
  }
}

void CudaBackend::decode_attention(const ProbeTable& table, const DeviceBatch& batch,
                                   const AttentionShape& shape, const Rope* rope, View q, View k, View v,
                                   const LayerCache& cache, View out) {
  constexpr const char* operation = "decode_attention";
  const std::int64_t rows = batch.tokens.cols;
  const std::int64_t width = shape.kv_heads * shape.head_dim;
  check_probes(operation, batch, table);
  check_view(operation, "q", q, rows, shape.heads * shape.head_dim, dtype_);
  check_view(operation, "k", k, rows, width, dtype_);
  check_view(operation, "v", v, rows, width, dtype_);
  check_view(operation, "out", out, rows, shape.heads * shape.head_dim, dtype_);
  for (const KeyValues* const of : {&cache.prompts, &cache.own}) {
    check_view(operation, "the cache", of->k, of->k.rows, width, dtype_);
    check_view(operation, "the cache", of->v, of->v.rows, width, dtype_);
    if (of->k.row_stride != of->v.row_stride)
      throw DeviceError("{}: keys lie {} elements apart, and values {}", operation, of->k.row_stride,
                        of->v.row_stride);
  }
  if (out.shared() || cache.own.k.shared() || batch.cache_rows.shared())
    throw DeviceError("{}: the probes share what each has of its own", operation);
  if (shape.head_dim > 256)
    throw DeviceError("{}: heads of {}, expected up to 256", operation, shape.head_dim);
  cuda::Decoding decoding{.q = matrices(q),
                          .k = matrices(k),
                          .v = matrices(v),
                          .prompt_k = matrices(cache.prompts.k),
                          .prompt_v = matrices(cache.prompts.v),
                          .own_k = matrices(cache.own.k),
                          .own_v = matrices(cache.own.v),
                          .out = matrices(out),
                          .positions = batch.positions.as<std::int32_t>(),
                          .cache_rows = batch.cache_rows.as<std::int32_t>(),
                          .prompt_begins = batch.prompt_begins.as<std::int32_t>(),
                          .prompt_lengths = batch.prompt_lengths.as<std::int32_t>(),
                          .index_stride = batch.cache_rows.probe_stride,
                          .rows = rows,
                          .prompt_rows = cache.prompts.k.rows,
                          .own_rows = cache.own.k.rows,
                          .slot_rows = cache.new_tokens,
                          .heads = shape.heads,
                          .kv_heads = shape.kv_heads,
                          .head_dim = shape.head_dim,
                          .scale = shape.scale,
                          .window = shape.window,
                          .soft_cap = shape.soft_cap,
                          .rotation = {}};
  if (rope != nullptr) decoding.rotation = rotation_of(operation, *rope, shape.head_dim);
  MEZZO_CUDA(cuda::decode_attend(decoding, table.count(), fault(), stream()));
}

void CudaBackend::next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                              const Sampling& sampling, View out) {
  constexpr const char* operation = "next_tokens";
  check_input(operation, head, x);
  check_probes(operation, batch, table);
  check_view(operation, "x", x, batch.shape.loss_rows, head.in(), dtype_);
  check_view(operation, "out", out, 1, batch.shape.targets, DType::i32);
  check_sharing(operation, out, x);
  const cuda::Choices choices{.rows = integers(batch.target_rows),
                              .keys = batch.draw_keys.as<std::int32_t>(),
                              .places = batch.draw_places.as<std::int32_t>(),
                              .key_stride = batch.draw_keys.probe_stride,
                              .place_stride = batch.draw_places.probe_stride,
                              .count = batch.shape.targets};
  const std::int64_t rows = copies_on(x, table) * x.rows;
  each_logits(operation, table, head, x, rows, [&](const cuda::Logits& logits) {
    MEZZO_CUDA(cuda::choose_tokens(logits, choices, sampling, copies_on(out, table), out.as<std::int32_t>(),
                                   out.probe_stride, fault(), stream()));
  });
}

void CudaBackend::gather(const ProbeTable& table, View x, View rows, View out) {
  check_view("gather", "out", out, rows.cols, x.cols, x.dtype);
  check_sharing("gather", out, x);
  MEZZO_CUDA(cuda::gather(matrices(x), x.rows, integers(rows), out.rows, out.cols, copies_on(out, table),
                          matrices(out), fault(), stream()));
}

void CudaBackend::score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                        View out) {
  check_input("score", head, x);
  if (!batch.target_tokens.shared()) {
    throw DeviceError(
        "device {}: score: each probe has target tokens of its own, which this device does not serve",
        name());
  }
  check_view("score", "x", x, batch.shape.loss_rows, head.in(), dtype_);
  check_view("score", "out", out, 1, batch.shape.targets, DType::f32);
  check_sharing("score", out, x);
  if (plan_.runs_tiles()) {
    score_by_sums(table, batch, head, x, out);
  } else {
    score_by_logits(table, batch, head, x, out);
  }
}

cuda::Rotation CudaBackend::rotation_of(const char* operation, const Rope& rope, std::int64_t head_dim) {
  check_view(operation, "the cosines", rope.cosines, rope.cosines.rows, rope.dims / 2, DType::f32);
  check_view(operation, "the sines", rope.sines, rope.cosines.rows, rope.dims / 2, DType::f32);
  if (rope.sines.row_stride != rope.cosines.row_stride)
    throw DeviceError("{}: the tables' rows are not equally far apart", operation);
  return {.half_split = rope.style == RopeStyle::half_split,
          .dims = rope.dims,
          .head_dim = head_dim,
          .heads = 0,
          .places = rope.cosines.rows,
          .cosines = rope.cosines.as<float>(),
          .sines = rope.sines.as<float>(),
          .table_stride = rope.cosines.row_stride};
}

void CudaBackend::score_by_sums(const ProbeTable& table, const DeviceBatch& batch, const Product& head,
                                const View& x, const View& out) {
  const std::int64_t floats = cuda::head_sums(head.out());
  const std::int64_t rows = copies_on(x, table) * x.rows;
  std::int64_t rows_a_range = range_rows("score", floats, rows);
  if (rows_a_range > cuda::head_tile_rows)
    rows_a_range = rows_a_range / cuda::head_tile_rows * cuda::head_tile_rows;
  for (std::int64_t first = 0, count = 0; first < rows; first += count) {
    const std::int64_t copy = x.shared() ? 0 : first / x.rows;
    const std::int64_t end = is_flat(x) ? rows : (copy + 1) * x.rows;  // of rows that are equally far apart
    count = std::min(rows_a_range, end - first);
    const std::int64_t begin = copy * x.probe_stride + (first - copy * x.rows) * x.row_stride;
    const cuda::Head range{
        .x = static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(begin) * size_of(x.dtype),
        .x_stride = x.row_stride,
        .weight = head.weight.codes.data,
        .weight_stride = head.weight.codes.row_stride,
        .in = head.in(),
        .vocabulary = head.out(),
        .bias = head.bias.data,
        .bias_dtype = head.bias.dtype,
        .soft_cap = head.score_cap,
        .first = first,
        .count = count,
        .copy_rows = x.shared() ? 0 : x.rows,
        .rows = x.rows};
    auto* const sums = scratch_.accumulators.as<float>();
    MEZZO_CUDA(cuda::sum_logits(range, targets_of(batch), sums, matrices(out), stream()));
    MEZZO_CUDA(cuda::answer(range, targets_of(batch), sums, copies_on(out, table), matrices(out), fault(),
                            stream()));
  }
}

void CudaBackend::score_by_logits(const ProbeTable& table, const DeviceBatch& batch, const Product& head,
                                  const View& x, const View& out) {
  if (x.rows > 0 && scratch_.totals.cols == 0) throw DeviceError("score: no room for totals was prepared");
  each_logits("score", table, head, x, scratch_.totals.cols, [&](const cuda::Logits& logits) {
    auto* const totals = scratch_.totals.as<double>();
    MEZZO_CUDA(cuda::log_sum_exp(logits, totals, stream()));
    MEZZO_CUDA(cuda::answer(logits, totals, integers(batch.target_rows), integers(batch.target_tokens),
                            batch.shape.targets, copies_on(out, table), matrices(out), fault(), stream()));
  });
}

void CudaBackend::each_logits(const char* operation, const ProbeTable& table, const Product& head,
                              const View& x, std::int64_t most_rows,
                              const std::function<void(const cuda::Logits& logits)>& use) {
  const ProductRange range = range_of(head, 0, head.parts.size());
  const GemmShape shape = plan_.shape_of(Way::plain, head, range, {}, direction_rows_);
  choose_algorithm(head, shape);
  const std::int64_t stride = aligned_floats(shape.n);
  const std::int64_t rows = copies_on(x, table) * x.rows;
  const std::int64_t rows_a_range = std::min(range_rows(operation, stride, rows), most_rows);
  for (std::int64_t first = 0; first < rows; first += rows_a_range) {
    const std::int64_t count = std::min(rows_a_range, rows - first);
    multiply(head, range, shape, x, first, count, scratch_.accumulators.data, stride);
    use({.data = scratch_.accumulators.as<float>(),
         .stride = stride,
         .vocabulary = head.out(),
         .bias = head.bias.data,
         .bias_dtype = head.bias.dtype,
         .soft_cap = head.score_cap,
         .first = first,
         .count = count,
         .copy_rows = x.shared() ? 0 : x.rows,
         .rows = x.rows});
  }
}

}  // namespace mezzo
