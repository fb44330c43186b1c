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

/// Whether a module holds nothing but rows of `rows`.
bool lies_in(const ProductPart& part, const RowRange& rows) {
  return part.row_begin >= rows.begin && part.row_begin + part.rows <= rows.begin + rows.count;
}

}  // namespace

Forward::Forward(const DevicePlan& sizes, Backend* backend, const DecoderSpec& spec,
                 const DecoderWeights& weights, Arena arena, std::int64_t longest, const CacheShape& cache,
                 std::int64_t cache_probes)
    : sizes_(sizes), backend_(backend), spec_(spec), weights_(weights), arena_(std::move(arena)) {
  for (std::size_t i = 0; i < spec_.blocks.size(); ++i) {
    if (attention_of(spec_.blocks[i]) != nullptr) last_attention_ = i;
  }
  take_ropes(longest);
  if (const auto floats = static_cast<std::int64_t>(operand_bytes() / size_of(DType::f32)); floats > 0)
    operands_ = arena_.take(DType::f32, 0, 1, floats, floats);
  take_cache(cache, cache_probes);
  before_begin_ = arena_.mark();
  if (backend_ == nullptr) return;
  const Probe unperturbed{};
  backend_->upload({&unperturbed, 1}, NoiseKind::gaussian, one_probe_);
}

std::size_t Forward::first_perturbed_block() const {
  if (starts_in_each_probe()) return 0;
  for (std::size_t i = 0; i < spec_.blocks.size(); ++i) {
    const BlockSpec& block = spec_.blocks[i];
    const std::vector<PartIndex> products = block.products();
    if (std::ranges::none_of(products, [&](PartIndex at) { return weights_.product(at).perturbed(); }))
      continue;
    while (spec_.blocks[i].parallel) --i;  // blocks of one residual stream run together
    return i;
  }
  return spec_.blocks.size();
}

PartIndex Forward::norm_before(std::size_t block) const {
  if (spec_.norm_after_sum) return spec_.blocks[block - 1].norm;
  return block == spec_.blocks.size() ? *spec_.final_norm : spec_.blocks[block].norm;
}

View Forward::take(std::int64_t probes, std::int64_t rows, std::int64_t cols) {
  return arena_.take(sizes_.activation_dtype(), probes, rows, cols, cols);
}

View Forward::take_input(std::int64_t probes, std::int64_t rows, const Product& product) {
  return arena_.take(sizes_.activation_dtype(), probes, rows, product.in(), sizes_.input_stride(product));
}

Forward::State Forward::take_state(std::int64_t probes, std::int64_t rows) {
  std::int64_t stride = sizes_.input_stride(weights_.product(spec_.project_out.value_or(spec_.head)));
  for (const BlockSpec& block : spec_.blocks)
    stride = std::max(stride, sizes_.input_stride(weights_.product(block.input)));
  State state;
  state.h = arena_.take(sizes_.residual_dtype(), probes, rows, spec_.hidden, spec_.hidden);
  state.x = arena_.take(sizes_.activation_dtype(), probes, rows, spec_.hidden, stride);
  return state;
}

View Forward::take_like(const View& x, std::int64_t rows, const ProbeTable& table) {
  return arena_.take(x.dtype, x.shared() ? 0 : table.count(), rows, x.cols, x.row_stride);
}

void Forward::take_ropes(std::int64_t longest) {
  for (const RopeDescription& of : spec_.ropes) {
    const std::int64_t half = of.dims / 2;
    const std::int64_t rows = rope_rows(of, longest);
    const Rope& rope = ropes_.emplace_back(Rope{.style = of.style,
                                                .dims = of.dims,
                                                .cosines = arena_.take(DType::f32, 0, rows, half, half),
                                                .sines = arena_.take(DType::f32, 0, rows, half, half)});
    if (backend_ == nullptr) continue;
    const RopeTables tables = rope_tables(of, longest);
    backend_->load(rope.cosines, DType::f32, tables.cosines.data(), false);
    backend_->load(rope.sines, DType::f32, tables.sines.data(), false);
    backend_->synchronize();
  }
}

void Forward::take_cache(const CacheShape& shape, std::int64_t probes) {
  caches_.resize(spec_.blocks.size());
  if (!shape) return;
  const std::size_t first_perturbed = first_perturbed_block();
  for (std::size_t i = 0; i < spec_.blocks.size(); ++i) {
    const AttentionSpec* const attention = attention_of(spec_.blocks[i]);
    if (attention == nullptr) continue;
    const auto take = [&](const RowRange& module, std::int64_t rows, bool shared) {
      return arena_.take(sizes_.activation_dtype(), shared ? 0 : probes, rows, module.count, module.count);
    };
    // Up to the first perturbed block all probes have the same x, and of it the same keys and values.
    const auto prompts = [&](const RowRange& module) {
      const Product& input = weights_.product(spec_.blocks[i].input);
      const bool perturbed = std::ranges::any_of(input.parts, [&](const ProductPart& part) {
        return part.perturbed() && part.row_begin < module.begin + module.count &&
               module.begin < part.row_begin + part.rows;
      });
      const bool shared = !starts_in_each_probe() && i <= first_perturbed && !perturbed;
      return take(module, shape.prompt_rows, shared);
    };
    const std::int64_t own = shape.slots * shape.new_tokens;
    caches_[i] = {.prompts = {.k = prompts(attention->k), .v = prompts(attention->v)},
                  .own = {.k = take(attention->k, own, false), .v = take(attention->v, own, false)},
                  .new_tokens = shape.new_tokens};
  }
}

void Forward::begin(const DeviceBatch& batch) {
  batch_ = &batch;
  shape_ = batch.shape;
  decodes_ = false;
  begin();
}

void Forward::take_decoding(const DeviceBatch& batch) {
  batch_ = &batch;
  shape_ = batch.shape;
  decodes_ = true;
  shared_ = {};
  after_begin_ = before_begin_;
}

void Forward::begin() {
  arena_.release_to(before_begin_);
  if (spec_.project_in && !weights_.trains_tensors()) embedded_ = embed_narrow(one_probe_, 0);
  State state;
  if (!starts_in_each_probe()) {
    state = take_state(0, shape_.tokens);
    start(one_probe_, state);
  }
  shared_ = run(0, first_perturbed_block(), std::move(state), true, one_probe_, 0);
  after_begin_ = arena_.mark();
}

View Forward::finish(const ProbeTable& table) {
  arena_.release_to(after_begin_);
  State state = shared_;
  if (starts_in_each_probe()) {
    state = take_state(table.count(), shape_.tokens);
    start(table, state);
  }
  const std::size_t first = starts_in_each_probe() ? 0 : first_perturbed_block();
  const View x =
      run(first, spec_.blocks.size(), std::move(state), starts_in_each_probe(), table, table.count()).x;
  return spec_.project_out ? projected_out(table, x) : x;
}

std::size_t Forward::measure(const BatchShape& largest, std::int64_t probes) {
  shape_ = largest;
  begin();
  ProbeTable table;
  table.probes.resize(static_cast<std::size_t>(probes));
  if (!largest.cache) {
    score(table, View{});
    return arena_.high_water();
  }
  next_tokens(table, {}, View{});
  DeviceBatch decoding;
  const std::int64_t slots = largest.cache.slots;
  decoding.shape = {.tokens = slots, .sequences = slots, .loss_rows = slots, .targets = slots};
  take_decoding(decoding);
  next_tokens(table, {}, View{});
  batch_ = nullptr;
  decodes_ = false;
  return arena_.high_water();
}

// The arena, its top above. `own` is the state that the run writes to: taken by begin() for what is shared,
// by finish() for the group's probes, and once more where the last attention drops the rows without a loss.
//
//     an attention block, until                      an MLP block, until
//
//     |                     |                        | delta of the MLP    | the sum is stored (1)
//     | out       [., q]    | delta is there         | middle       [., I] | that delta is there
//     | q, k, v   [., .]    | out is there (4)       | delta of attention  | the sum is stored
//     | delta     [., H]    | the sum is stored (2)  |   as left there     |
//     | x_r, h_r  [R, H]    | the sum is stored (3)  | x_r, h_r     [R, H] | the sum is stored
//     +---------------------+ above_own              +---------------------+ above_own
//     | own x     [T|R, H]  | norm(h + delta)        | own x      [T|R, H] | norm(h + both deltas)
//     | own h     [T|R, H]  | not written            | own h      [T|R, H] | h + both deltas
//     +---------------------+ after_begin_ (in finish(); in begin() before_begin_)
//     | what begin() left: h, x and, where it ended between attention and MLP, a delta
//     +---------------------+ before_begin_
//     | parts of a probe (5)|
//     | rotary tables       |
//
//   A mixture has in place of the middle what forward_mixture.cc says.
//   gate | up [., 2 I] of one module lies above the MLP's delta until middle is there
//   out, middle: weighted sums of values, activation(input product); with room for the output product's tail
//   (1) lies in own x where own x is shared alike; the norm reads it there and writes over it
//   (2) lies where q was, if q is as wide and shared alike; else below q
//   (3) in the last attention: the rows with a loss, once keys and values of all rows are there; h_r is own h
//       if that is shared alike
//   (4) twice where they are stored head by head: as the product gives them, and split
//   (5) of one operation at a time, where tensors of the model are trained themselves
//
// Where norms stand behind the sums, own h is not written but for (1), and what is read as h is x.
//
// Parallel blocks run as one: the MLP reads the attention's x or, with a norm of its own, a norm of the
// attention's h, which lies in own x.
Forward::State Forward::run(std::size_t first, std::size_t last, State in, bool is_own,
                            const ProbeTable& table, std::int64_t probes) {
  State own = in;  // h and x to write to; its deltas are not used
  std::size_t above_own = arena_.mark();
  if (spec_.norm_after_sum) in.h = in.x;
  for (std::size_t index = first; index < last; ++index) {
    const BlockSpec& block = spec_.blocks[index];
    const AttentionSpec* const attention = attention_of(block);
    const bool drops_rows =
        index == last_attention_ && attention != nullptr && shape_.has_rows_without_loss();
    if (!is_own || drops_rows) {
      own = take_state(probes, drops_rows ? shape_.loss_rows : in.h.rows);
      above_own = arena_.mark();
    }
    is_own = true;

    if (attention != nullptr) {
      const View x = in.x;
      if (drops_rows) {
        const View h = in.h;
        in.h =
            h.shared() == own.h.shared() ? own.h : arena_.take(h.dtype, 0, shape_.loss_rows, h.cols, h.cols);
        above_own = arena_.mark();  // h lasts until the MLP's part is added to it
        in.x = take_like(x, shape_.loss_rows, table);
        const bool x_is_read = reads_x_of(index) || has_queries_apart(block, *attention);
        if (backend_ != nullptr) backend_->gather(table, h, batch_->loss_rows, in.h);
        if (backend_ != nullptr && x_is_read) backend_->gather(table, x, batch_->loss_rows, in.x);
      }
      in.deltas.push_back(attention_delta(index, *attention, x, in.x, drops_rows, table));
    } else if (const auto* const mixture = std::get_if<MixtureSpec>(&block.core)) {
      in.deltas.push_back(mixture_delta(block, *mixture, in.x, place_of_delta(own), table));
    } else {
      in.deltas.push_back(mlp_delta(block, in.x, place_of_delta(own), table));
    }
    if (block.post_norm) {
      const View& delta = in.deltas.back();
      residual_norm(table, delta, {}, View{}, *block.post_norm, delta);
    }
    if (is_parallel(index + 1)) {  // the next block reads the same h, and the same x or a norm of its own
      if (spec_.blocks[index + 1].norm != block.norm) {
        residual_norm(table, in.h, {}, View{}, norm_before(index + 1), own.x);
        in.x = own.x;
      }
      continue;
    }

    // Where norms stand behind the sums, h is x: there is nothing to store beside it.
    const bool sums = spec_.norm_after_sum || attention == nullptr || in.deltas.size() == 2;
    const bool stores = sums && !spec_.norm_after_sum;
    residual_norm(table, in.h, in.deltas, stores ? own.h : View{}, norm_before(index + 1), own.x);
    if (sums) {
      arena_.release_to(above_own);
      in = {.h = spec_.norm_after_sum ? own.x : own.h, .deltas = {}, .x = own.x};
    } else {
      in.x = own.x;
    }
  }
  return in;
}

bool Forward::reads_x_of(std::size_t block) const {
  return is_parallel(block + 1) && spec_.blocks[block + 1].norm == spec_.blocks[block].norm;
}

bool Forward::has_queries_apart(const BlockSpec& block, const AttentionSpec& attention) const {
  return std::ranges::any_of(weights_.product(block.input).parts,
                             [&](const ProductPart& part) { return lies_in(part, attention.q); });
}

View Forward::attention_delta(std::size_t index, const AttentionSpec& attention, const View& x,
                              const View& x_read, bool loss_rows_only, const ProbeTable& table) {
  const BlockSpec& block = spec_.blocks[index];
  const Product& input = weights_.product(block.input);
  const Product& output = weights_.product(block.output);
  // What the input product gives, module by module. A module of queries alone is asked for the rows that go
  // on.
  struct Output {
    bool read_rows_only = false;
    std::int64_t probes = 0;
    View y;
  };
  std::vector<Output> outputs;
  std::int64_t out_probes = 0;
  for (const ProductPart& part : input.parts) {
    const std::int64_t probes = x.shared() && !part.perturbed() ? 0 : table.count();
    outputs.push_back(
        {.read_rows_only = loss_rows_only && lies_in(part, attention.q), .probes = probes, .y = {}});
    out_probes = std::max(out_probes, probes);
  }
  const std::int64_t queries = x_read.rows;
  const std::int64_t delta_probes = output.perturbed() ? table.count() : out_probes;

  // What outlives this function lies lowest: where q is, if there is room for it, else below q.
  const bool takes_place_of_q = delta_probes == outputs.front().probes && spec_.hidden <= attention.q.count;
  View delta;
  if (!takes_place_of_q) delta = take(delta_probes, queries, spec_.hidden);
  const std::size_t mark = arena_.mark();
  // Neighbours that are alike share one buffer, so that one product can fill it.
  for (std::size_t first = 0, last = 0; first < outputs.size(); first = last) {
    const Output& like = outputs[first];
    std::int64_t width = 0;
    for (; last < outputs.size() && outputs[last].probes == like.probes &&
           outputs[last].read_rows_only == like.read_rows_only;
         ++last) {
      width += input.parts[last].rows;
    }
    const View shared = take(like.probes, like.read_rows_only ? queries : x.rows, width);
    for (std::size_t i = first; i < last; ++i) {
      outputs[i].y =
          slice(shared, input.parts[i].row_begin - input.parts[first].row_begin, input.parts[i].rows);
    }
  }
  // One product for neighbours that read the same rows.
  for (std::size_t first = 0, last = 0; first < outputs.size(); first = last) {
    std::vector<View> y;
    for (; last < outputs.size() && outputs[last].read_rows_only == outputs[first].read_rows_only; ++last)
      y.push_back(outputs[last].y);
    const View& rows = outputs[first].read_rows_only ? x_read : x;
    product(table, block.input, first, rows, y, epilogue_of(block.input));
  }
  if (attention.head_by_head) {
    const View mixed = outputs.front().y;
    outputs.front().y = take(outputs.front().probes, mixed.rows, mixed.cols);
    if (backend_ != nullptr) backend_->split_heads(table, attention.shape, mixed, outputs.front().y);
  }
  const auto module_of = [&](const RowRange& rows) {
    std::size_t i = 0;
    while (input.parts.at(i).row_begin + input.parts[i].rows <= rows.begin) ++i;
    return i;
  };
  const auto columns_of = [&](const RowRange& rows) {
    const std::size_t i = module_of(rows);
    return slice(outputs[i].y, rows.begin - input.parts[i].row_begin, rows.count);
  };
  View q = columns_of(attention.q);
  const View k = columns_of(attention.k);
  const View v = columns_of(attention.v);
  if (const Output& with_q = outputs[module_of(attention.q)]; loss_rows_only && !with_q.read_rows_only) {
    const View all = q;
    q = take(with_q.probes, queries, attention.q.count);
    if (backend_ != nullptr) backend_->gather(table, all, batch_->loss_rows, q);
  }

  const auto norm_heads = [&](const std::optional<PartIndex>& norm, const View& heads) {
    if (norm) this->norm_heads(table, *norm, attention.shape.head_dim, heads);
  };
  norm_heads(attention.q_norm, q);
  norm_heads(attention.k_norm, k);

  const View out = take_input(out_probes, queries, output);
  if (backend_ != nullptr)
    attend(index, attention, q, k, v, loss_rows_only ? batch_->loss_rows : View{}, out, table);
  arena_.release_to(mark);
  if (takes_place_of_q) delta = take(delta_probes, queries, spec_.hidden);
  product(table, block.output, out, delta);
  return delta;
}

void Forward::attend(std::size_t index, const AttentionSpec& attention, const View& q, const View& k,
                     const View& v, const View& query_rows, const View& out, const ProbeTable& table) {
  const Rope* rope = attention.rope ? &ropes_.at(*attention.rope) : nullptr;
  const AttentionShape& shape = attention.shape;
  if (decodes_) return backend_->decode_attention(table, *batch_, shape, rope, q, k, v, caches_[index], out);
  if (batch_->cache_rows.cols > 0) {  // keys are kept as queries meet them
    if (rope != nullptr) {
      backend_->rotate(table, *batch_, *rope, query_rows, shape.head_dim, q);
      backend_->rotate(table, *batch_, *rope, View{}, shape.head_dim, k);
    }
    rope = nullptr;
    backend_->store(table, *batch_, k, v, caches_[index].prompts);
  }
  backend_->attention(table, *batch_, shape, rope, q, k, v, query_rows, out);
}

View Forward::mlp_delta(const BlockSpec& block, const View& x, const View& place, const ProbeTable& table) {
  const Product& input = weights_.product(block.input);
  const Product& output = weights_.product(block.output);
  const std::int64_t middle_probes = x.shared() && !input.perturbed() ? 0 : table.count();
  const std::int64_t delta_probes = output.perturbed() ? table.count() : middle_probes;
  const View middle = take_input(middle_probes, x.rows, output);
  const bool shared_alike = place.shared() == (delta_probes == 0);
  const View delta = shared_alike ? place : take(delta_probes, x.rows, spec_.hidden);
  if (const auto* const mlp = std::get_if<MlpSpec>(&block.core); mlp != nullptr && mlp->gate) {
    const std::size_t mark = arena_.mark();
    const View gate_up = take(middle_probes, x.rows, input.out());
    product(table, block.input, x, gate_up);
    if (backend_ != nullptr) backend_->gate(table, *mlp->gate, gate_up, middle);
    arena_.release_to(mark);
  } else {
    product(table, block.input, x, middle);
  }
  product(table, block.output, middle, delta);
  return delta;
}

std::vector<std::uint64_t> Forward::key(const ProbeTable& table, const View& out) const {
  const auto address = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data); };
  std::vector<std::uint64_t> result = {address(this),
                                       address(shared_.h.data),
                                       address(batch_->storage.data()),
                                       address(table.device.data()),
                                       address(out.data),
                                       static_cast<std::uint64_t>(out.probe_stride),
                                       static_cast<std::uint64_t>(decodes_),
                                       static_cast<std::uint64_t>(table.noise)};
  for (const std::int64_t size :
       {shape_.tokens, shape_.sequences, shape_.loss_rows, shape_.targets, shape_.longest, table.count()})
    result.push_back(static_cast<std::uint64_t>(size));
  // Which probes are of the same direction.
  for (std::size_t p = 1; p < table.probes.size(); ++p)
    result.push_back(table.probes[p].seed == table.probes[p - 1].seed ? 1 : 0);
  return result;
}

}  // namespace mezzo
