#include "forward.h"

#include <algorithm>
#include <utility>

#include "mezzo/core/error.h"
#include "rope.h"

namespace mezzo {
namespace {

/// Columns of a view that may only have been measured.
View slice(const View& view, std::int64_t begin, std::int64_t count) {
  if (view) return view.columns(begin, count);
  View part = view;
  part.cols = count;
  return part;
}

}  // namespace

Forward::Forward(const DevicePlan& sizes, Backend* backend, const Description& description,
                 const DecoderWeights& weights, Arena arena, std::int64_t longest)
    : sizes_(sizes), backend_(backend), d_(description), weights_(weights), arena_(std::move(arena)) {
  take_rope(longest);
  before_begin_ = arena_.mark();
  if (backend_ == nullptr) return;
  const Probe unperturbed{};
  backend_->upload({&unperturbed, 1}, NoiseKind::gaussian, one_probe_);
}

std::size_t Forward::measure(const BatchShape& largest, std::int64_t probes) {
  shape_ = largest;
  begin();
  ProbeTable table;
  table.probes.resize(static_cast<std::size_t>(probes));
  finish(table);
  return arena_.high_water();
}

void Forward::begin(const DeviceBatch& batch) {
  batch_ = &batch;
  shape_ = batch.shape;
  begin();
}

std::int64_t Forward::first_perturbed_block() const {
  for (std::int64_t i = 0; i < d_.layers; ++i) {
    const Layer& layer = weights_.layers[static_cast<std::size_t>(i)];
    const bool attention = layer.qkv.perturbed() || layer.attention_output.perturbed();
    const bool mlp = layer.mlp_input.perturbed() || layer.mlp_output.perturbed();
    if (attention || (mlp && d_.parallel_residual)) return i * blocks_per_layer();
    if (mlp) return i * blocks_per_layer() + 1;
  }
  return blocks();
}

const Norm& Forward::norm_before(std::int64_t block) const {
  if (block == blocks()) return weights_.final_norm;
  const Layer& layer = weights_.layers[static_cast<std::size_t>(block / blocks_per_layer())];
  return block % blocks_per_layer() == 0 ? layer.attention_norm : layer.mlp_norm;
}

View Forward::take(std::int64_t probes, std::int64_t rows, std::int64_t cols) {
  return arena_.take(sizes_.activation_dtype(), probes, rows, cols, cols);
}

View Forward::take_input(std::int64_t probes, std::int64_t rows, const Product& product) {
  return arena_.take(sizes_.activation_dtype(), probes, rows, product.in(), sizes_.input_stride(product));
}

Forward::State Forward::take_state(std::int64_t probes, std::int64_t rows) {
  std::int64_t stride = sizes_.input_stride(weights_.head);
  for (const Layer& layer : weights_.layers) {
    stride = std::max({stride, sizes_.input_stride(layer.qkv), sizes_.input_stride(layer.mlp_input)});
  }
  State state;
  state.h = arena_.take(sizes_.residual_dtype(), probes, rows, d_.hidden, d_.hidden);
  state.x = arena_.take(sizes_.activation_dtype(), probes, rows, d_.hidden, stride);
  return state;
}

void Forward::take_rope(std::int64_t longest) {
  if (d_.positions != PositionKind::rotary) return;
  const std::int64_t half = d_.rope.dims / 2;
  rope_ = {.style = d_.rope.style,
           .dims = d_.rope.dims,
           .cosines = arena_.take(DType::f32, 0, longest, half, half),
           .sines = arena_.take(DType::f32, 0, longest, half, half)};
  if (backend_ == nullptr) return;
  const RopeTables tables = rope_tables(d_.rope, longest);
  backend_->load(rope_.cosines, DType::f32, tables.cosines.data(), false);
  backend_->load(rope_.sines, DType::f32, tables.sines.data(), false);
  backend_->synchronize();
}

void Forward::begin() {
  arena_.release_to(before_begin_);
  State state = take_state(0, shape_.tokens);
  if (backend_ != nullptr) {
    backend_->embed(*batch_, weights_.embedding, weights_.positions, 0, state.h);
    backend_->residual_norm(one_probe_, state.h, {}, View{}, norm_before(0), state.x);
  }
  shared_ = run(0, first_perturbed_block(), state, true, one_probe_, 0);
  after_begin_ = arena_.mark();
}

View Forward::finish(const ProbeTable& table) {
  arena_.release_to(after_begin_);
  return run(first_perturbed_block(), blocks(), shared_, false, table, table.count()).x;
}

Forward::State Forward::run(std::int64_t first, std::int64_t last, State in, bool is_own,
                            const ProbeTable& table, std::int64_t probes) {
  State own = in;  // h and x to write to; its delta is not used
  std::size_t above_own = arena_.mark();
  for (std::int64_t block = first; block < last; ++block) {
    const std::int64_t index = block / blocks_per_layer();
    const Layer& layer = weights_.layers[static_cast<std::size_t>(index)];
    const bool attention = block % blocks_per_layer() == 0;
    const bool mlp = !attention || d_.parallel_residual;
    const bool drops_rows = attention && index + 1 == d_.layers && shape_.has_rows_without_loss();
    if (!is_own || drops_rows) {
      own = take_state(probes, drops_rows ? shape_.loss_rows : in.h.rows);
      above_own = arena_.mark();
    }
    is_own = true;

    View h = in.h;
    View x = in.x;
    std::vector<View> deltas;
    if (attention) {
      if (drops_rows) {
        // h is to last until the MLP's part is added to it.
        h = h.shared() == own.h.shared() ? own.h : arena_.take(h.dtype, 0, shape_.loss_rows, h.cols, h.cols);
        above_own = arena_.mark();
        x = take_like(in.x, shape_.loss_rows, table);
        const bool x_is_used = !d_.fused_qkv() || d_.parallel_residual;  // a fused product needs all rows
        if (backend_ != nullptr) backend_->gather(table, in.h, batch_->loss_rows, h);
        if (backend_ != nullptr && x_is_used) backend_->gather(table, in.x, batch_->loss_rows, x);
      }
      deltas.push_back(attention_delta(layer, in.x, x, drops_rows, table));
    } else {
      deltas.push_back(in.delta);
    }
    const std::size_t mark = arena_.mark();
    if (mlp) deltas.push_back(mlp_delta(layer, x, own.x, table));
    const View sum = mlp ? own.h : View{};
    if (backend_ != nullptr) backend_->residual_norm(table, h, deltas, sum, norm_before(block + 1), own.x);
    arena_.release_to(mlp ? above_own : mark);
    in = {.h = mlp ? own.h : h, .delta = mlp ? View{} : deltas.front(), .x = own.x};
  }
  return in;
}

View Forward::take_like(const View& x, std::int64_t rows, const ProbeTable& table) {
  return arena_.take(x.dtype, x.shared() ? 0 : table.count(), rows, x.cols, x.row_stride);
}

View Forward::attention_delta(const Layer& layer, const View& x, const View& x_read, bool loss_rows_only,
                              const ProbeTable& table) {
  const std::int64_t rows = x.rows;
  const std::int64_t queries = x_read.rows;
  const auto probes_of = [&](std::size_t part) {
    return x.shared() && !layer.qkv.parts[part].perturbed() ? 0 : table.count();
  };
  const bool fused = d_.fused_qkv();
  const std::int64_t q_probes = probes_of(0);
  const std::int64_t k_probes = fused ? q_probes : probes_of(1);
  const std::int64_t v_probes = fused ? q_probes : probes_of(2);
  const std::int64_t out_probes = std::max({q_probes, k_probes, v_probes});
  const std::int64_t delta_probes = layer.attention_output.perturbed() ? table.count() : out_probes;
  const std::int64_t q_width = d_.query_width();
  const std::int64_t kv_width = d_.kv_width();

  // What outlives this function lies lowest: where q is, if there is room for it, else below q.
  const bool takes_place_of_q = delta_probes == q_probes && d_.hidden <= q_width;
  View delta;
  if (!takes_place_of_q) delta = take(delta_probes, queries, d_.hidden);
  const std::size_t mark = arena_.mark();
  View q, k, v;
  if (fused) {
    const View qkv = take(q_probes, rows, q_width + 2 * kv_width);
    if (backend_ != nullptr) backend_->product(table, layer.qkv, 0, x, {{qkv}}, {});
    q = slice(qkv, 0, q_width);
    k = slice(qkv, q_width, kv_width);
    v = slice(qkv, q_width + kv_width, kv_width);
    if (loss_rows_only) {
      const View all = q;
      q = take(q_probes, queries, q_width);
      if (backend_ != nullptr) backend_->gather(table, all, batch_->loss_rows, q);
    }
  } else {
    // Neighbours that are alike share one buffer, so that one product can fill it.
    const bool kv_alike = k_probes == v_probes;
    const bool all_alike = kv_alike && q_probes == k_probes && !loss_rows_only;
    if (all_alike) {
      const View qkv = take(q_probes, rows, q_width + 2 * kv_width);
      q = slice(qkv, 0, q_width);
      k = slice(qkv, q_width, kv_width);
      v = slice(qkv, q_width + kv_width, kv_width);
    } else {
      q = take(q_probes, queries, q_width);
      const View kv = take(k_probes, rows, kv_alike ? 2 * kv_width : kv_width);
      k = slice(kv, 0, kv_width);
      v = kv_alike ? slice(kv, kv_width, kv_width) : take(v_probes, rows, kv_width);
    }
    if (backend_ != nullptr && loss_rows_only) {
      backend_->product(table, layer.qkv, 1, x, {{k, v}}, {});
      backend_->product(table, layer.qkv, 0, x_read, {{q}}, {});
    } else if (backend_ != nullptr) {
      backend_->product(table, layer.qkv, 0, x, {{q, k, v}}, {});
    }
  }

  const View out = take_input(out_probes, queries, layer.attention_output);
  if (backend_ != nullptr) {
    const View query_rows = loss_rows_only ? batch_->loss_rows : View{};
    const Rope* turned = d_.positions == PositionKind::rotary ? &rope_ : nullptr;
    backend_->attention(table, *batch_, attention_shape(d_), turned, q, k, v, query_rows, out);
  }
  arena_.release_to(mark);
  if (takes_place_of_q) delta = take(delta_probes, queries, d_.hidden);
  if (backend_ != nullptr) backend_->product(table, layer.attention_output, 0, out, {{delta}}, {});
  return delta;
}

View Forward::mlp_delta(const Layer& layer, const View& x, const View& place, const ProbeTable& table) {
  const std::int64_t middle_probes = x.shared() && !layer.mlp_input.perturbed() ? 0 : table.count();
  const std::int64_t delta_probes = layer.mlp_output.perturbed() ? table.count() : middle_probes;
  const View middle = take_input(middle_probes, x.rows, layer.mlp_output);
  const bool shared_alike = place.shared() == (delta_probes == 0);
  const View delta = shared_alike ? place : take(delta_probes, x.rows, d_.hidden);
  if (backend_ != nullptr) {
    backend_->product(table, layer.mlp_input, 0, x, {{middle}}, mlp_epilogue(d_));
    backend_->product(table, layer.mlp_output, 0, middle, {{delta}}, {});
  }
  return delta;
}

Epilogue Forward::mlp_epilogue(const Description& d) {
  return {.activation = d.activation, .gated = d.gated};
}

std::vector<std::uint64_t> Forward::key(const ProbeTable& table, const View& out) const {
  const auto address = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data); };
  std::vector<std::uint64_t> result = {address(this),
                                       address(shared_.h.data),
                                       address(batch_->storage.data()),
                                       address(table.device.data()),
                                       address(out.data),
                                       static_cast<std::uint64_t>(out.probe_stride),
                                       static_cast<std::uint64_t>(table.noise)};
  for (const std::int64_t size :
       {shape_.tokens, shape_.sequences, shape_.loss_rows, shape_.targets, shape_.longest, table.count()})
    result.push_back(static_cast<std::uint64_t>(size));
  // Which probes are of the same direction.
  for (std::size_t p = 1; p < table.probes.size(); ++p)
    result.push_back(table.probes[p].seed == table.probes[p - 1].seed ? 1 : 0);
  return result;
}

AttentionShape Forward::attention_shape(const Description& d) {
  return {.heads = d.heads, .kv_heads = d.kv_heads, .head_dim = d.head_dim, .scale = d.attention_scale};
}

}  // namespace mezzo
