// The oracle of the other backends: one probe after another through the naive loops of kernels/reference.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends.h"
#include "host_backend.h"
#include "host_routing.h"
#include "kernels/reference/activation.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/linear.h"
#include "kernels/reference/noise.h"
#include "kernels/reference/norm.h"
#include "kernels/reference/routing.h"
#include "kernels/reference/rows.h"
#include "kernels/reference/sampling.h"
#include "kernels/reference/score.h"
#include "kernels/reference/update.h"
#include "mezzo/core/error.h"
#include "mezzo/core/process.h"

namespace mezzo {
namespace {

void activate(Activation activation, float* x, std::int64_t count) {
  switch (activation) {
    case Activation::none:
      return;
    case Activation::silu:
      return reference::silu(x, count);
    case Activation::gelu_tanh:
      return reference::gelu_tanh(x, count);
    case Activation::gelu_erf:
      return reference::gelu_erf(x, count);
    case Activation::relu:
      return reference::relu(x, count);
  }
}

class ReferenceBackend final : public HostBackend {
 public:
  std::string name() const override { return "reference"; }
  std::string device() const override { return "host, naive loops, 1 thread"; }
  std::map<std::string, std::string> fingerprint() const override {
    return {{"backend", "reference"}, {"libm", math_library()}};
  }
  std::size_t scratch_bytes(const Workload&) const override { return 0; }
  void prepare(const Workload& workload) override { check_served(*this, workload); }

  void fill_normal(View destination, std::uint64_t seed, float scale) override {
    std::vector<float> row(static_cast<std::size_t>(destination.cols));
    for (std::int64_t i = 0; i < destination.rows; ++i) {
      reference::fill_noise(row.data(), destination.cols, NoiseKind::gaussian, seed, 0,
                            static_cast<std::uint64_t>(i * destination.cols));
      for (float& value : row) value *= scale;
      load(destination.row_range(i, 1), DType::f32, row.data(), false);
    }
  }

  void perturb(const ProbeTable& table, std::int64_t first, std::int64_t count, const DenseNoise& noise,
               float offset, View destination) override {
    check_perturb(table, first, count, noise, destination);
    check_shape("perturb", "the destination", destination, noise.value.rows, noise.value.cols);
    const std::int64_t cols = destination.cols;
    for (std::int64_t copy = 0; copy < count; ++copy) {
      const Probe& probe = table.probes[static_cast<std::size_t>(first + copy)];
      for (std::int64_t i = 0; i < destination.rows; ++i) {
        for (std::int64_t j = 0; j < cols; ++j) {
          const float z =
              noise_at(table.noise, probe.seed, noise.tensor, static_cast<std::uint64_t>(i * cols + j));
          const float value = with_masters(
              noise.value, [&](const auto* values) { return master_value(values[i * cols + j]); });
          rows_of(destination, copy).row(i)[j] = perturbed(value, offset, probe.epsilon, z);
        }
      }
    }
  }

  void embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
             std::int64_t position_offset, View h) override {
    check_embed(table, batch, words, places, position_offset, h);
    for (std::int64_t p = 0; p < copies_of(h, table); ++p) {
      reference::embed(rows_of(words, 0), integers_of(batch.tokens, p), rows_of(places, 0),
                       integers_of(batch.positions, p), position_offset, h.rows, h.cols, rows_of(h, p));
    }
  }

  void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                     const Norm& norm, View x) override {
    check_residual_norm(h_in, deltas, h_out, x);
    std::vector<float> h(static_cast<std::size_t>(h_in.cols));
    for (std::int64_t i = 0; i < h_in.rows; ++i) {
      for (std::int64_t p = 0; p < copies_of(x, table); ++p) {
        const float* row = rows_of(h_in, p).row(i);
        std::copy(row, row + h_in.cols, h.begin());
        for (const View& delta : deltas) reference::add(rows_of(delta, p).row(i), h_in.cols, h.data());
        const float* bias = norm.bias ? norm.bias.as<float>() : nullptr;
        if (norm.kind == NormKind::rms) {
          reference::rms_norm(h.data(), h_in.cols, norm.weight.as<float>(), norm.epsilon,
                              rows_of(x, p).row(i));
        } else {
          reference::layer_norm(h.data(), h_in.cols, norm.weight.as<float>(), bias, norm.epsilon,
                                rows_of(x, p).row(i));
        }
        if (h_out) std::copy(h.begin(), h.end(), rows_of(h_out, p).row(i));
      }
    }
  }

  void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override {
    check_shape("product", "x", x, x.rows, product.in());
    for (const ProductOutput& output : outputs_of(product, first_part, y, epilogue.gated)) {
      check_shape("product", "y", output.y, x.rows, output.y.cols);
      check_sharing("product", output.y, x);
      for (std::int64_t p = 0; p < copies_of(output.y, table); ++p)
        fill(table, product, output, p, x, epilogue);
    }
  }

  void norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) override {
    check_norm_heads(norm, head_dim, x);
    for (std::int64_t column = 0; column < x.cols; column += head_dim) {
      const View head = x.columns(column, head_dim);
      residual_norm(table, head, {}, View{}, norm, head);
    }
  }

  void scale(const ProbeTable& table, float factor, View h) override {
    for (std::int64_t p = 0; p < copies_of(h, table); ++p) {
      for (std::int64_t t = 0; t < h.rows; ++t) {
        for (std::int64_t j = 0; j < h.cols; ++j) rows_of(h, p).row(t)[j] *= factor;
      }
    }
  }

  void soft_cap(const ProbeTable& table, float cap, View x) override {
    for (std::int64_t p = 0; p < copies_of(x, table); ++p) {
      for (std::int64_t t = 0; t < x.rows; ++t) reference::soft_cap(rows_of(x, p).row(t), x.cols, cap);
    }
  }

  void gate(const ProbeTable& table, Activation activation, View gate_up, View y) override {
    check_gate(gate_up, y);
    for (std::int64_t p = 0; p < copies_of(y, table); ++p) {
      for (std::int64_t t = 0; t < y.rows; ++t) {
        float* const row = rows_of(gate_up, p).row(t);
        activate(activation, row, y.cols);
        reference::multiply(row, row + y.cols, y.cols, rows_of(y, p).row(t));
      }
    }
  }

  void route(const ProbeTable& table, View logits, const Routing& routing) override {
    check_route(logits, routing);
    const RoutingRule& rule = routing.rule;
    for (std::int64_t p = 0; p < copies_of(routing.weights, table); ++p) {
      for (std::int64_t t = 0; t < logits.rows; ++t) {
        reference::choose_experts(rows_of(logits, p).row(t), rule.experts, rule.chosen, rule.renormalised,
                                  integers_of(routing.places, p) + t * rule.chosen,
                                  rows_of(routing.weights, p).row(t));
      }
      place_rows(routing, p);
    }
  }

  void dispatch(const ProbeTable& table, const Routing& routing, View x, View out) override {
    check_dispatch(table, routing, x, out);
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      reference::gather(rows_of(x, p), integers_of(routing.rows, p), out.rows, out.cols, rows_of(out, p));
    }
  }

  void expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                      const Routing& routing, View x, View y, Epilogue epilogue) override {
    check_expert_product(table, experts, routing, x, y);
    for (std::int64_t p = 0; p < copies_of(y, table); ++p) {
      const std::int32_t* const begin = integers_of(routing.begins, p);
      for (std::size_t e = 0; e < experts.size(); ++e) {
        const std::int64_t rows = begin[e + 1] - begin[e];
        const View places = y.row_range(begin[e], rows);
        fill(table, *experts[e], outputs_of(*experts[e], 0, {{places}}, epilogue.gated).front(), p,
             x.row_range(begin[e], rows), epilogue);
      }
    }
  }

  void combine(const ProbeTable& table, const Routing& routing, View x, View out) override {
    check_combine(table, routing, x, out);
    const std::int64_t chosen = routing.rule.chosen;
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      for (std::int64_t t = 0; t < out.rows; ++t) {
        reference::combine(rows_of(routing.weights, p).row(t), integers_of(routing.places, p) + t * chosen,
                           chosen, rows_of(x, p), out.cols, rows_of(out, p).row(t));
      }
    }
  }

  void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
              std::int64_t head_dim, View x) override {
    const std::int64_t heads = x.cols / head_dim;
    check_shape("rotate", "x", x, row_index ? row_index.cols : batch.positions.cols, heads * head_dim);
    check_indices("rotate", "positions", batch.positions, rope.cosines.rows);
    if (row_index) check_indices("rotate", "row_index", row_index, batch.positions.cols);
    const auto* positions = batch.positions.as<std::int32_t>();
    for (std::int64_t p = 0; p < copies_of(x, table); ++p) {
      for (std::int64_t i = 0; i < x.rows; ++i) {
        const std::int64_t position = positions[row_index ? row_index.as<std::int32_t>()[i] : i];
        rotate_row(rope, position, heads, head_dim, rows_of(x, p).row(i));
      }
    }
  }

  void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                 const Rope* rope, View q, View k, View v, View query_rows, View out) override {
    if (rope != nullptr) {
      rotate(table, batch, *rope, query_rows, shape.head_dim, q);
      rotate(table, batch, *rope, View{}, shape.head_dim, k);
    }
    check_attention(batch, shape, q, k, v, query_rows, out);
    const std::int64_t queries = out.rows;

    const auto* offsets = batch.offsets.as<std::int32_t>();
    const std::int64_t group = shape.heads / shape.kv_heads;
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t t = query_rows ? query_rows.as<std::int32_t>()[i] : i;
        // The sequence that row t belongs to: the last one that starts at or before it.
        const std::int64_t begin = *(std::upper_bound(offsets, offsets + batch.offsets.cols, t) - 1);
        for (std::int64_t head = 0; head < shape.heads; ++head) {
          const std::int64_t kv = head / group * shape.head_dim;
          reference::attend(rows_of(q, p).row(i) + head * shape.head_dim,
                            {rows_of(k, p).row(begin) + kv, k.row_stride},
                            {rows_of(v, p).row(begin) + kv, v.row_stride}, t - begin, shape.head_dim,
                            {.scale = shape.scale, .window = shape.window, .soft_cap = shape.soft_cap},
                            rows_of(out, p).row(i) + head * shape.head_dim);
        }
      }
    }
  }

  void decode_attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                        const Rope* rope, View q, View k, View v, const LayerCache& cache,
                        View out) override {
    check_decode_attention(table, batch, shape, q, k, v, cache, out);
    if (rope != nullptr)
      check_indices("rotate", "positions", batch.positions, rope->cosines.rows, batch.probes);
    const std::int64_t group = shape.heads / shape.kv_heads;
    for (std::int64_t p = 0; p < table.count(); ++p) {
      for (std::int64_t t = 0; t < out.rows; ++t) {
        std::fill_n(rows_of(out, p).row(t), out.cols, 0.0f);
        if (integers_of(batch.cache_rows, p)[t] < 0) continue;
        const std::int64_t own = t * cache.new_tokens + integers_of(batch.cache_rows, p)[t];
        if (rope != nullptr) {
          const std::int64_t position = integers_of(batch.positions, p)[t];
          for (const auto& [heads, x] : {std::pair(shape.heads, q), std::pair(shape.kv_heads, k)})
            rotate_row(*rope, position, heads, shape.head_dim, rows_of(x, p).row(t));
        }
        std::copy_n(rows_of(k, p).row(t), k.cols, rows_of(cache.own.k, p).row(own));
        std::copy_n(rows_of(v, p).row(t), v.cols, rows_of(cache.own.v, p).row(own));
        // The sequence's keys and values in one piece.
        const SeenRows seen = seen_rows(batch, cache, p, t);
        std::vector<float> keys, values;
        const auto append = [&](const KeyValues& of, std::int64_t begin, std::int64_t count) {
          for (std::int64_t row = begin; row < begin + count; ++row) {
            keys.insert(keys.end(), rows_of(of.k, p).row(row), rows_of(of.k, p).row(row) + k.cols);
            values.insert(values.end(), rows_of(of.v, p).row(row), rows_of(of.v, p).row(row) + v.cols);
          }
        };
        append(cache.prompts, seen.prompt_begin, seen.prompt_length);
        append(cache.own, seen.own_begin, seen.own_length);
        for (std::int64_t head = 0; head < shape.heads; ++head) {
          const std::int64_t kv = head / group * shape.head_dim;
          reference::attend(rows_of(q, p).row(t) + head * shape.head_dim, {keys.data() + kv, k.cols},
                            {values.data() + kv, v.cols}, seen.length() - 1, shape.head_dim,
                            {.scale = shape.scale, .window = shape.window, .soft_cap = shape.soft_cap},
                            rows_of(out, p).row(t) + head * shape.head_dim);
        }
      }
    }
  }

  void next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                   const Sampling& sampling, View out) override {
    check_next_tokens(table, batch, head, x, out);
    std::vector<double> logits(static_cast<std::size_t>(head.out()));
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      for (std::int64_t j = 0; j < batch.shape.targets; ++j) {
        head_logits(head, rows_of(x, p).row(batch.target_rows.as<std::int32_t>()[j]), logits);
        const std::vector<float> rounded(logits.begin(), logits.end());
        integers_of(out, p)[j] = reference::choose_token(
            rounded.data(), head.out(), sampling, draw_key_of(batch, p, j), draw_place_of(batch, p, j));
      }
    }
  }

  void split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) override {
    check_split_heads(shape, x, out);
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      for (std::int64_t t = 0; t < out.rows; ++t)
        split_row(shape, rows_of(x, p).row(t), rows_of(out, p).row(t));
    }
  }

  void gather(const ProbeTable& table, View x, View rows, View out) override {
    check_shape("gather", "out", out, rows.cols, x.cols);
    check_sharing("gather", out, x);
    check_sharing("gather", out, rows);
    check_indices("gather", "rows", rows, x.rows, table.count());
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      reference::gather(rows_of(x, p), integers_of(rows, p), out.rows, out.cols, rows_of(out, p));
    }
  }

  void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
             View out) override {
    check_score(table, batch, head, x, out);
    std::vector<double> logits(static_cast<std::size_t>(head.out()));
    const auto* loss_rows = batch.target_rows.as<std::int32_t>();
    for (std::int64_t p = 0; p < copies_of(out, table); ++p) {
      const std::int32_t* tokens = integers_of(batch.target_tokens, p);
      std::int64_t last = -1;  // the row whose logits are there: targets of one row often stand together
      double total = 0.0;
      for (std::int64_t j = 0; j < batch.shape.targets; ++j) {
        if (loss_rows[j] != last) {
          last = loss_rows[j];
          head_logits(head, rows_of(x, p).row(last), logits);
          total = reference::log_sum_exp(logits.data(), head.out());
        }
        rows_of(out, p).data[j] = static_cast<float>(logits[static_cast<std::size_t>(tokens[j])] - total);
      }
    }
  }

  void update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) override {
    const UpdateState kept = update_state(step.factors, trainables, state);
    for (std::size_t id = 0; id < trainables.list.size(); ++id) {
      const Trainable& tensor = trainables.list[id];
      with_masters(trainables.view(id), [&](auto* theta) {
        reference::update(theta, state_of(kept, step.factors, trainables, id), tensor.count(),
                          tensor.noise(id), step.seeds, step.coefficients, noise, step.factors,
                          step.rounding);
      });
    }
  }

  std::uint64_t hash(const Trainables& trainables) override {
    std::uint64_t sum = 0;
    for (std::size_t id = 0; id < trainables.list.size(); ++id) {
      sum += with_masters(trainables.view(id), [&](const auto* theta) {
        return reference::hash(theta, trainables.list[id].count(), static_cast<std::uint32_t>(id));
      });
    }
    return sum;
  }

 private:
  /// logits [vocabulary] of a row x [in], capped.
  static void head_logits(const Product& head, const float* x, std::vector<double>& logits) {
    reference::head_logits(x, head.in(), rows_of(head.weight.codes, 0), head.out(),
                           head.bias ? head.bias.as<float>() : nullptr, logits.data());
    if (head.score_cap == 0.0f) return;
    const double cap = head.score_cap;
    for (double& logit : logits) logit = cap * std::tanh(logit / cap);
  }

  static void rotate_row(const Rope& rope, std::int64_t position, std::int64_t heads, std::int64_t head_dim,
                         float* row) {
    const float* cosines = rows_of(rope.cosines, 0).row(position);
    const float* sines = rows_of(rope.sines, 0).row(position);
    if (rope.style == RopeStyle::half_split) {
      reference::rotate_half_split(row, heads, head_dim, rope.dims, cosines, sines);
    } else {
      reference::rotate_interleaved(row, heads, head_dim, rope.dims, cosines, sines);
    }
  }

  /// What `output` holds for probe p: parts of the product over all rows of x, with the epilogue.
  static void fill(const ProbeTable& table, const Product& product, const ProductOutput& output,
                   std::int64_t p, View x, Epilogue epilogue) {
    const std::int64_t cols = output.y.cols;
    if (epilogue.gated) {
      std::vector<float> storage(static_cast<std::size_t>(2 * x.rows * cols));
      const Rows<float> gate{storage.data(), cols};
      const Rows<float> up{storage.data() + x.rows * cols, cols};
      part(table, product, product.parts[output.first], p, x, gate);
      part(table, product, product.parts[output.first + 1], p, x, up);
      for (std::int64_t i = 0; i < x.rows; ++i) {
        activate(epilogue.activation, gate.row(i), cols);
        reference::multiply(gate.row(i), up.row(i), cols, rows_of(output.y, p).row(i));
      }
      return;
    }
    Rows<float> to = rows_of(output.y, p);
    for (std::size_t i = 0; i < output.count; ++i) {
      part(table, product, product.parts[output.first + i], p, x, to);
      to.data += product.parts[output.first + i].rows;
    }
    to = rows_of(output.y, p);
    for (std::int64_t i = 0; i < x.rows; ++i) activate(epilogue.activation, to.row(i), cols);
  }

  /// y = W x + bias + tail of one part for probe p.
  static void part(const ProbeTable& table, const Product& product, const ProductPart& part, std::int64_t p,
                   View x, Rows<float> y) {
    const std::int64_t in = product.in();
    const float* bias = product.bias ? product.bias.as<float>() + part.row_begin : nullptr;
    const Rows<float> weight = rows_of(product.weight.codes, 0);
    reference::linear(rows_of(x, p), x.rows, in, {weight.row(part.row_begin), weight.stride}, part.rows, bias,
                      y);
    if (part.tail() == nullptr) return;
    const LowRankTail& factors = *part.tail();
    const Probe unperturbed{};
    const Probe& probe = table.probes.empty() ? unperturbed : table.probes[static_cast<std::size_t>(p)];
    const std::int64_t rank = factors.a.rows;
    std::vector<float> z_a(static_cast<std::size_t>(rank * in));
    std::vector<float> z_b(static_cast<std::size_t>(part.rows * rank));
    if (probe.epsilon != 0.0f) {
      reference::fill_noise(z_a.data(), std::ssize(z_a), table.noise, probe.seed, factors.a_noise, 0);
      reference::fill_noise(z_b.data(), std::ssize(z_b), table.noise, probe.seed, factors.b_noise, 0);
    }
    // Of W's own noise A and B are zero.
    std::vector<float> zeros(factors.outer ? static_cast<std::size_t>(rank * std::max(in, part.rows)) : 0);
    reference::add_tail(
        rows_of(x, p), x.rows, in,
        {.a = factors.outer ? Rows<const float>{zeros.data(), in} : Rows<const float>(rows_of(factors.a, 0)),
         .b =
             factors.outer ? Rows<const float>{zeros.data(), rank} : Rows<const float>(rows_of(factors.b, 0)),
         .z_a = z_a.data(),
         .z_b = z_b.data(),
         .rank = rank,
         .scaling = factors.scaling,
         .a_epsilon = factors.a_epsilon(probe.epsilon),
         .epsilon = probe.epsilon},
        part.rows, y);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace mezzo
