#include "mezzo/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numbers>
#include <utility>
#include <vector>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

/// Rotary frequencies as transformers computes them: every step rounded to fp32 where it does so.
std::vector<float> rope_frequencies(const RopeDescription& rope) {
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < rope.dims; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rope.dims);
    float frequency = 1.0f / static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    if (rope.llama3_scaling) {
      // transformers' modeling_rope_utils, _compute_llama3_parameters: long waves are stretched by `factor`,
      // short ones kept, those between blended.
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      const double low = rope.original_max_positions / rope.low_freq_factor;
      const double high = rope.original_max_positions / rope.high_freq_factor;
      const double stretched = frequency / rope.factor;
      if (wavelength > low) {
        frequency = static_cast<float>(stretched);
      } else if (wavelength >= high) {
        const double blend = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                             (rope.high_freq_factor - rope.low_freq_factor);
        frequency = static_cast<float>((1.0 - blend) * stretched + blend * frequency);
      }
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

std::size_t bytes_of(const DevicePlan& plan, const View& view) {
  const std::int64_t rows = view.rows > 1 ? plan.weight_rows(view.rows) : view.rows;
  return static_cast<std::size_t>(rows * view.row_stride) * size_of(view.dtype);
}

/// Columns of a view that may only have been measured.
View slice(const View& view, std::int64_t begin, std::int64_t count) {
  if (view) return view.columns(begin, count);
  View part = view;
  part.cols = count;
  return part;
}

}  // namespace

struct Decoder::Layer {
  Norm attention_norm;
  Norm mlp_norm;  ///< unused with a parallel residual
  Product qkv, attention_output, mlp_input, mlp_output;
};

struct Decoder::Weights {
  View embedding, positions;
  std::vector<Layer> layers;
  Norm final_norm;
  Product head;

  std::vector<View*> storage;   ///< every view above that owns memory
  std::vector<Buffer> buffers;  ///< of `storage`, in its order; empty until load()
};

/// One forward over an arena: the code that runs it and, without a backend, the code that measures it.
///
/// The forward is a row of blocks, attention and MLP of each layer in turn (one block a layer with a parallel
/// residual). Between two blocks stand the residual stream and its norm x. The first perturbed block is where
/// begin() ends.
struct Decoder::Forward {
  /// The residual stream is h + delta: what attention adds is stored with what the MLP adds, not by itself,
  /// since a sum costs more to write and read than its terms.
  struct State {
    View h;      ///< [T or R, H], in the residual dtype
    View delta;  ///< [T or R, H]; no rows: none
    View x;      ///< [T or R, H], the next block's input; the last one's is the head's
  };

  const DevicePlan& sizes;  ///< asked for strides and dtypes
  Backend* backend;         ///< null: only measure
  const Description& d;
  const Weights& weights;
  Arena arena;
  Rope rope = {};
  ProbeTable one_probe = {};  ///< unperturbed, for what all probes share
  const DeviceBatch* batch = nullptr;
  BatchShape shape = {};
  State shared = {};             ///< what begin() left
  std::size_t before_begin = 0;  ///< marks of the arena
  std::size_t after_begin = 0;

  // ---- the order of blocks
  std::int64_t blocks_per_layer() const { return d.parallel_residual ? 1 : 2; }
  std::int64_t blocks() const { return d.layers * blocks_per_layer(); }

  /// The first block that depends on the probe, or blocks().
  std::int64_t first_perturbed_block() const {
    for (std::int64_t i = 0; i < d.layers; ++i) {
      const Layer& layer = weights.layers[static_cast<std::size_t>(i)];
      const bool attention = layer.qkv.perturbed() || layer.attention_output.perturbed();
      const bool mlp = layer.mlp_input.perturbed() || layer.mlp_output.perturbed();
      if (attention || (mlp && d.parallel_residual)) return i * blocks_per_layer();
      if (mlp) return i * blocks_per_layer() + 1;
    }
    return blocks();
  }

  /// The norm whose output block `block` loss_rows; the final one behind the last.
  const Norm& norm_before(std::int64_t block) const {
    if (block == blocks()) return weights.final_norm;
    const Layer& layer = weights.layers[static_cast<std::size_t>(block / blocks_per_layer())];
    return block % blocks_per_layer() == 0 ? layer.attention_norm : layer.mlp_norm;
  }

  // ---- activations; `probes` 0: shared
  View take(std::int64_t probes, std::int64_t rows, std::int64_t cols) {
    return arena.take(sizes.activation_dtype(), probes, rows, cols, cols);
  }
  View take_input(std::int64_t probes, std::int64_t rows, const Product& product) {
    return arena.take(sizes.activation_dtype(), probes, rows, product.in(), sizes.input_stride(product));
  }
  /// h and x of `rows` rows. x may feed any block: its rows have room for the widest tail.
  State take_state(std::int64_t probes, std::int64_t rows) {
    std::int64_t stride = sizes.input_stride(weights.head);
    for (const Layer& layer : weights.layers) {
      stride = std::max({stride, sizes.input_stride(layer.qkv), sizes.input_stride(layer.mlp_input)});
    }
    State state;
    state.h = arena.take(sizes.residual_dtype(), probes, rows, d.hidden, d.hidden);
    state.x = arena.take(sizes.activation_dtype(), probes, rows, d.hidden, stride);
    return state;
  }

  // ---- the forward
  /// Takes the rotary tables for sequences of up to `longest` tokens.
  void take_rope(std::int64_t longest) {
    if (d.positions != PositionKind::rotary) return;
    const std::int64_t half = d.rope.dims / 2;
    rope = {.style = d.rope.style,
            .dims = d.rope.dims,
            .cosines = arena.take(DType::f32, 0, longest, half, half),
            .sines = arena.take(DType::f32, 0, longest, half, half)};
    if (backend == nullptr) return;
    const std::vector<float> frequencies = rope_frequencies(d.rope);
    std::vector<float> cosines(static_cast<std::size_t>(longest * half));
    std::vector<float> sines(cosines.size());
    for (std::size_t i = 0; i < cosines.size(); ++i) {
      const float angle = static_cast<float>(i / frequencies.size()) * frequencies[i % frequencies.size()];
      cosines[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sines[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
    backend->load(rope.cosines, DType::f32, cosines.data(), false);
    backend->load(rope.sines, DType::f32, sines.data(), false);
    backend->synchronize();
  }

  void begin() {
    arena.release_to(before_begin);
    State state = take_state(0, shape.tokens);
    if (backend != nullptr) {
      backend->embed(*batch, weights.embedding, weights.positions, 0, state.h);
      backend->residual_norm(one_probe, state.h, {}, View{}, norm_before(0), state.x);
    }
    shared = run(0, first_perturbed_block(), state, true, one_probe, 0);
    after_begin = arena.mark();
  }

  /// The head's input for one group, [R, H].
  View finish(const ProbeTable& table) {
    arena.release_to(after_begin);
    return run(first_perturbed_block(), blocks(), shared, false, table, table.count()).x;
  }

  /// Blocks [first, last). The outputs belong to `probes` probes (0: shared); `in` may be written over if it
  /// `is_own`.
  State run(std::int64_t first, std::int64_t last, State in, bool is_own, const ProbeTable& table,
            std::int64_t probes) {
    State own = in;  // h and x to write to; its delta is not used
    std::size_t above_own = arena.mark();
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t index = block / blocks_per_layer();
      const Layer& layer = weights.layers[static_cast<std::size_t>(index)];
      const bool attention = block % blocks_per_layer() == 0;
      const bool mlp = !attention || d.parallel_residual;
      const bool drops_rows = attention && index + 1 == d.layers && shape.has_rows_without_loss();
      if (!is_own || drops_rows) {
        own = take_state(probes, drops_rows ? shape.loss_rows : in.h.rows);
        above_own = arena.mark();
      }
      is_own = true;

      View h = in.h;
      View x = in.x;
      std::vector<View> deltas;
      if (attention) {
        if (drops_rows) {
          // h is to last until the MLP's part is added to it.
          h = h.shared() == own.h.shared() ? own.h : arena.take(h.dtype, 0, shape.loss_rows, h.cols, h.cols);
          above_own = arena.mark();
          x = take_like(in.x, shape.loss_rows, table);
          const bool x_is_used = !d.fused_qkv() || d.parallel_residual;  // a fused product needs all rows
          if (backend != nullptr) backend->gather(table, in.h, batch->loss_rows, h);
          if (backend != nullptr && x_is_used) backend->gather(table, in.x, batch->loss_rows, x);
        }
        deltas.push_back(attention_delta(layer, in.x, x, drops_rows, table));
      } else {
        deltas.push_back(in.delta);
      }
      const std::size_t mark = arena.mark();
      if (mlp) deltas.push_back(mlp_delta(layer, x, own.x, table));
      const View sum = mlp ? own.h : View{};
      if (backend != nullptr) backend->residual_norm(table, h, deltas, sum, norm_before(block + 1), own.x);
      arena.release_to(mlp ? above_own : mark);
      in = {.h = mlp ? own.h : h, .delta = mlp ? View{} : deltas.front(), .x = own.x};
    }
    return in;
  }

  /// A matrix of `rows` rows, else as x: shared or not, and as wide.
  View take_like(const View& x, std::int64_t rows, const ProbeTable& table) {
    return arena.take(x.dtype, x.shared() ? 0 : table.count(), rows, x.cols, x.row_stride);
  }

  /// What attention adds to the residual stream, on top of the arena. `x` are all rows; `x_read`, where only
  /// read rows go on, those.
  View attention_delta(const Layer& layer, const View& x, const View& x_read, bool loss_rows_only,
                       const ProbeTable& table) {
    const std::int64_t rows = x.rows;
    const std::int64_t queries = x_read.rows;
    const auto probes_of = [&](std::size_t part) {
      return x.shared() && !layer.qkv.parts[part].tail ? 0 : table.count();
    };
    const bool fused = d.fused_qkv();
    const std::int64_t q_probes = probes_of(0);
    const std::int64_t k_probes = fused ? q_probes : probes_of(1);
    const std::int64_t v_probes = fused ? q_probes : probes_of(2);
    const std::int64_t out_probes = std::max({q_probes, k_probes, v_probes});
    const std::int64_t delta_probes = layer.attention_output.perturbed() ? table.count() : out_probes;
    const std::int64_t q_width = d.query_width();
    const std::int64_t kv_width = d.kv_width();

    // What outlives this function lies lowest: where q is, if there is room for it, else below q.
    const bool takes_place_of_q = delta_probes == q_probes && d.hidden <= q_width;
    View delta;
    if (!takes_place_of_q) delta = take(delta_probes, queries, d.hidden);
    const std::size_t mark = arena.mark();
    View q, k, v;
    if (fused) {
      const View qkv = take(q_probes, rows, q_width + 2 * kv_width);
      if (backend != nullptr) backend->product(table, layer.qkv, 0, x, {{qkv}}, {});
      q = slice(qkv, 0, q_width);
      k = slice(qkv, q_width, kv_width);
      v = slice(qkv, q_width + kv_width, kv_width);
      if (loss_rows_only) {
        const View all = q;
        q = take(q_probes, queries, q_width);
        if (backend != nullptr) backend->gather(table, all, batch->loss_rows, q);
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
      if (backend != nullptr && loss_rows_only) {
        backend->product(table, layer.qkv, 1, x, {{k, v}}, {});
        backend->product(table, layer.qkv, 0, x_read, {{q}}, {});
      } else if (backend != nullptr) {
        backend->product(table, layer.qkv, 0, x, {{q, k, v}}, {});
      }
    }

    const View out = take_input(out_probes, queries, layer.attention_output);
    if (backend != nullptr) {
      const View query_rows = loss_rows_only ? batch->loss_rows : View{};
      const Rope* turned = d.positions == PositionKind::rotary ? &rope : nullptr;
      backend->attention(table, *batch, attention_shape(d), turned, q, k, v, query_rows, out);
    }
    arena.release_to(mark);
    if (takes_place_of_q) delta = take(delta_probes, queries, d.hidden);
    if (backend != nullptr) backend->product(table, layer.attention_output, 0, out, {{delta}}, {});
    return delta;
  }

  /// What the MLP adds, in `place` if that is the probes' own or shared as it is. `place` may be x.
  View mlp_delta(const Layer& layer, const View& x, const View& place, const ProbeTable& table) {
    const std::int64_t middle_probes = x.shared() && !layer.mlp_input.perturbed() ? 0 : table.count();
    const std::int64_t delta_probes = layer.mlp_output.perturbed() ? table.count() : middle_probes;
    const View middle = take_input(middle_probes, x.rows, layer.mlp_output);
    const bool shared_alike = place.shared() == (delta_probes == 0);
    const View delta = shared_alike ? place : take(delta_probes, x.rows, d.hidden);
    if (backend != nullptr) {
      backend->product(table, layer.mlp_input, 0, x, {{middle}}, mlp_epilogue(d));
      backend->product(table, layer.mlp_output, 0, middle, {{delta}}, {});
    }
    return delta;
  }

  static Epilogue mlp_epilogue(const Description& d) {
    return {.activation = d.activation, .gated = d.gated};
  }
  /// All that finish() and what reads its result depend on, but for what lies in the device's memory.
  std::vector<std::uint64_t> key(const ProbeTable& table, const View& out) const {
    const auto address = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data); };
    std::vector<std::uint64_t> key = {address(this),
                                      address(shared.h.data),
                                      address(batch->storage.data()),
                                      address(table.device.data()),
                                      address(out.data),
                                      static_cast<std::uint64_t>(out.probe_stride),
                                      static_cast<std::uint64_t>(table.noise)};
    for (const std::int64_t size :
         {shape.tokens, shape.sequences, shape.loss_rows, shape.targets, shape.longest, table.count()})
      key.push_back(static_cast<std::uint64_t>(size));
    // Which probes are of the same direction.
    for (std::size_t p = 1; p < table.probes.size(); ++p)
      key.push_back(table.probes[p].seed == table.probes[p - 1].seed ? 1 : 0);
    return key;
  }

  static AttentionShape attention_shape(const Description& d) {
    return {.heads = d.heads, .kv_heads = d.kv_heads, .head_dim = d.head_dim, .scale = d.attention_scale};
  }
};

Decoder::Decoder(Backend& backend, const Description& description, const AdapterConfig* adapter,
                 const Trainables* trainables)
    : Decoder(backend, &backend, description, adapter, trainables) {}

Decoder::Decoder(const DevicePlan& plan, const Description& description, const AdapterConfig* adapter,
                 const Trainables* trainables)
    : Decoder(plan, nullptr, description, adapter, trainables) {}

Decoder::Decoder(const DevicePlan& plan, Backend* backend, const Description& description,
                 const AdapterConfig* adapter, const Trainables* trainables)
    : plan_(plan), backend_(backend), description_(description), weights_(std::make_unique<Weights>()) {
  const Description& d = description_;
  if ((adapter == nullptr) != (trainables == nullptr))
    throw Error("a decoder has an adapter without its trainables");

  std::map<std::string_view, std::size_t> ids;
  std::map<std::string_view, bool> adapted;
  const std::vector<LinearModule> modules =
      adapter != nullptr ? adapted_modules(d, *adapter) : std::vector<LinearModule>{};
  if (adapter != nullptr) {
    for (const LinearModule& module : modules) adapted[module.name] = true;
    const std::vector<TrainableSpec> specs = lora_trainables(d, *adapter);
    const bool same =
        std::ranges::equal(specs, trainables->list, [](const TrainableSpec& a, const Trainable& b) {
          return a.name == b.name && a.rows == b.rows && a.cols == b.cols;
        });
    if (!same) throw Error("a decoder's trainables are not those of its adapter");
    for (std::size_t id = 0; id < specs.size(); ++id) ids[trainables->list[id].name] = id;
  }

  const DType dtype = plan.weight_dtype();
  const auto matrix = [&](std::int64_t rows, std::int64_t cols, std::int64_t tail_ranks) {
    return View{
        .dtype = dtype, .rows = rows, .cols = cols, .row_stride = plan.weight_stride(cols, tail_ranks)};
  };
  const auto vector = [&](std::int64_t count, DType type = DType::f32) {
    return View{.dtype = type, .rows = 1, .cols = count, .row_stride = count};
  };
  const auto norm = [&] {
    Norm result{.kind = d.norm, .weight = vector(d.hidden), .bias = {}, .epsilon = d.norm_epsilon};
    if (d.norm == NormKind::layer) result.bias = vector(d.hidden);
    return result;
  };
  const auto product = [&](const std::string& prefix, const std::vector<std::string>& names,
                           const std::vector<std::int64_t>& rows, std::int64_t in, bool bias) {
    Product result{.name = prefix + names[0], .weight = {}, .bias = {}, .parts = {}};
    std::int64_t out = 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
      ProductPart part{.name = prefix + names[i], .row_begin = out, .rows = rows[i], .tail = {}};
      if (adapted.contains(part.name)) {
        const std::size_t a = ids.at(lora_a_name(part.name));
        const std::size_t b = ids.at(lora_b_name(part.name));
        part.tail = LowRankTail{.a = trainables->view(a),
                                .b = trainables->view(b),
                                .a_id = static_cast<std::uint32_t>(a),
                                .b_id = static_cast<std::uint32_t>(b),
                                .scaling = adapter->scaling()};
      }
      out += part.rows;
      result.parts.push_back(std::move(part));
    }
    result.weight = matrix(out, in, result.tail_ranks());
    result.stored_rows = plan.weight_rows(out);
    if (bias) result.bias = vector(out, dtype);
    return result;
  };

  Weights& w = *weights_;
  w.embedding = matrix(d.vocabulary, d.hidden, 0);
  if (d.positions == PositionKind::learned) w.positions = matrix(d.max_positions, d.hidden, 0);
  const std::vector<std::int64_t> qkv_rows = d.fused_qkv()
                                                 ? std::vector{d.query_width() + 2 * d.kv_width()}
                                                 : std::vector{d.query_width(), d.kv_width(), d.kv_width()};
  for (std::int64_t i = 0; i < d.layers; ++i) {
    const std::string prefix = d.layer_prefix(i);
    Layer layer;
    layer.attention_norm = norm();
    if (!d.parallel_residual) layer.mlp_norm = norm();
    layer.qkv = product(prefix, d.names.qkv, qkv_rows, d.hidden, d.qkv_bias);
    layer.attention_output =
        product(prefix, {d.names.attention_output}, {d.hidden}, d.query_width(), d.attention_output_bias);
    layer.mlp_input = product(prefix, d.names.mlp_input,
                              std::vector(d.names.mlp_input.size(), d.intermediate), d.hidden, d.mlp_bias);
    layer.mlp_output = product(prefix, {d.names.mlp_output}, {d.hidden}, d.intermediate, d.mlp_bias);
    w.layers.push_back(std::move(layer));
  }
  w.final_norm = norm();
  w.head = product("", {d.names.head}, {d.vocabulary}, d.hidden, d.head_bias);

  const auto own = [&](View& view) {
    if (view.rows > 0) w.storage.push_back(&view);
  };
  const auto own_norm = [&](Norm& n) {
    own(n.weight);
    own(n.bias);
  };
  const auto own_product = [&](Product& p) {
    own(p.weight);
    own(p.bias);
  };
  own(w.embedding);
  own(w.positions);
  for (Layer& layer : w.layers) {
    own_norm(layer.attention_norm);
    own_norm(layer.mlp_norm);
    for (Product* p : {&layer.qkv, &layer.attention_output, &layer.mlp_input, &layer.mlp_output})
      own_product(*p);
  }
  own_norm(w.final_norm);
  if (!d.tied_head) own(w.head.weight);
  own(w.head.bias);
}

Decoder::~Decoder() = default;

Backend& Decoder::backend() const {
  if (backend_ == nullptr) throw Error("a decoder without a device was to run");
  return *backend_;
}

namespace {

/// Copies tensors of the model's files into views of a backend's memory, a piece at a time: the mapped pages
/// of a piece are given back before the next is touched.
class WeightLoader {
 public:
  WeightLoader(Backend& backend, const ModelFiles& files, const LoadProgress& progress)
      : backend_(backend), files_(files), progress_(progress) {
    for (const WeightSpec& spec : weight_specs(files.description)) total_ += files.weight(spec.name).bytes;
  }

  /// The whole tensor `name` into `destination`; stored as [cols, rows] when `transposed`.
  void load(const std::string& name, const View& destination, bool transposed = false) {
    const TensorInfo& tensor = files_.weight(name);
    const std::int64_t stored_rows = transposed ? destination.cols : destination.rows;
    const std::int64_t stored_cols = transposed ? destination.rows : destination.cols;
    if (stored_rows * stored_cols != tensor.elements()) {
      throw Error("{}: the weight does not fill its place of [{}, {}]", name, destination.rows,
                  destination.cols);
    }
    const std::size_t row_bytes = static_cast<std::size_t>(stored_cols) * size_of(tensor.dtype);
    const auto piece_rows = static_cast<std::int64_t>(std::max<std::size_t>(1, piece_bytes / row_bytes));
    for (std::int64_t row = 0; row < stored_rows; row += piece_rows) {
      const std::int64_t count = std::min(piece_rows, stored_rows - row);
      TensorInfo piece = tensor;
      piece.data += static_cast<std::size_t>(row) * row_bytes;
      piece.bytes = static_cast<std::size_t>(count) * row_bytes;
      View place = destination;
      if (transposed) {
        place = destination.columns(row, count);
      } else {
        place.data = static_cast<std::byte*>(destination.data) +
                     static_cast<std::size_t>(row * destination.row_stride) * size_of(destination.dtype);
        place.rows = count;
      }
      backend_.load(place, tensor.dtype, aligned(piece), transposed);
      backend_.synchronize();
      files_.tensors.release(piece);
      loaded_ += piece.bytes;
      if (progress_) progress_(loaded_, total_);
    }
  }

 private:
  static constexpr std::size_t piece_bytes = std::size_t{16} << 20;

  /// A file's tensors may start anywhere; the backend wants whole elements.
  const void* aligned(const TensorInfo& piece) {
    if (reinterpret_cast<std::uintptr_t>(piece.data) % size_of(piece.dtype) == 0) return piece.data;
    staging_.resize(piece.bytes);
    std::memcpy(staging_.data(), piece.data, piece.bytes);
    return staging_.data();
  }

  Backend& backend_;
  const ModelFiles& files_;
  const LoadProgress& progress_;
  std::vector<std::byte> staging_;
  std::size_t loaded_ = 0;
  std::size_t total_ = 0;
};

}  // namespace

void Decoder::allocate_weights() {
  Weights& w = *weights_;
  if (!w.buffers.empty()) throw Error("a decoder's weights were to be loaded twice");
  for (View* view : w.storage) {
    w.buffers.push_back(backend().allocate(bytes_of(plan_, *view)));
    view->data = w.buffers.back().data();
  }
  if (description_.tied_head) w.head.weight = w.embedding;
}

void Decoder::randomize(std::uint64_t seed, float scale) {
  allocate_weights();
  Weights& w = *weights_;
  for (const View* view : w.storage) {
    if (view->rows > 1) {
      backend().fill_normal(*view, seed++, scale);
    } else {
      const std::vector<float> zeros(static_cast<std::size_t>(view->cols), 0.0f);
      backend().load(*view, DType::f32, zeros.data(), false);
    }
  }
  const std::vector<float> ones(static_cast<std::size_t>(description_.hidden), 1.0f);
  const auto set_norm = [&](const Norm& norm) {
    if (norm.weight) backend().load(norm.weight, DType::f32, ones.data(), false);
  };
  for (const Layer& layer : w.layers) {
    set_norm(layer.attention_norm);
    set_norm(layer.mlp_norm);
  }
  set_norm(w.final_norm);
  backend().synchronize();
}

void Decoder::load(const ModelFiles& files, const LoadProgress& progress) {
  allocate_weights();
  const Description& d = description_;
  const Weights& w = *weights_;
  WeightLoader loader(backend(), files, progress);
  const auto load_norm = [&](const std::string& name, const Norm& norm) {
    loader.load(name + ".weight", norm.weight);
    if (norm.bias) loader.load(name + ".bias", norm.bias);
  };
  const auto load_product = [&](const Product& product, bool transposed) {
    for (const ProductPart& part : product.parts) {
      View rows = product.weight;
      rows.data = static_cast<std::byte*>(rows.data) +
                  static_cast<std::size_t>(part.row_begin * rows.row_stride) * size_of(rows.dtype);
      rows.rows = part.rows;
      loader.load(part.name + ".weight", rows, transposed);
      if (product.bias) loader.load(part.name + ".bias", product.bias.columns(part.row_begin, part.rows));
    }
  };
  loader.load(d.names.prefix + d.names.embedding + ".weight", w.embedding);
  if (w.positions) loader.load(d.names.prefix + d.names.position_embedding + ".weight", w.positions);
  for (std::int64_t i = 0; i < d.layers; ++i) {
    const Layer& layer = w.layers[static_cast<std::size_t>(i)];
    load_norm(d.layer_prefix(i) + d.names.attention_norm, layer.attention_norm);
    if (!d.parallel_residual) load_norm(d.layer_prefix(i) + d.names.mlp_norm, layer.mlp_norm);
    for (const Product* product :
         {&layer.qkv, &layer.attention_output, &layer.mlp_input, &layer.mlp_output}) {
      load_product(*product, d.transposed);
    }
  }
  load_norm(d.names.prefix + d.names.final_norm, w.final_norm);
  if (!d.tied_head) loader.load(d.names.head + ".weight", w.head.weight);
  if (w.head.bias) loader.load(d.names.head + ".bias", w.head.bias);
}

std::size_t Decoder::weight_bytes() const {
  std::size_t bytes = 0;
  for (const View* view : weights_->storage) bytes += bytes_of(plan_, *view);
  return bytes;
}

std::size_t Decoder::activation_bytes(const BatchShape& largest, std::int64_t probes) const {
  Forward measured{plan_, nullptr, description_, *weights_, Arena()};
  measured.shape = largest;
  measured.take_rope(largest.longest);
  measured.before_begin = measured.arena.mark();
  measured.begin();
  ProbeTable table;
  table.probes.resize(static_cast<std::size_t>(probes));
  measured.finish(table);
  return measured.arena.high_water();
}

Workload Decoder::workload(const BatchShape& largest, std::int64_t probes) const {
  Workload workload{.largest = largest,
                    .probes = probes,
                    .products = {},
                    .attention = Forward::attention_shape(description_)};
  for (const Layer& layer : weights_->layers) {
    workload.products.emplace_back(&layer.qkv);
    workload.products.emplace_back(&layer.attention_output);
    workload.products.emplace_back(&layer.mlp_input, Forward::mlp_epilogue(description_));
    workload.products.emplace_back(&layer.mlp_output);
  }
  workload.products.emplace_back(&weights_->head, Epilogue{}, true);
  return workload;
}

void Decoder::reserve(const BatchShape& largest, std::int64_t probes) {
  if (largest.longest > description_.max_positions) {
    throw InputError("a sequence has {} tokens, but the model has {} positions", largest.longest,
                     description_.max_positions);
  }
  for (const Reservation& before : reserved_) {
    if (before.covers({largest, probes})) return;
  }
  // One arena serves every reservation: the rotary table is as long as the longest sequence of any.
  reserved_.push_back({largest, probes});
  std::int64_t longest = 0;
  for (const Reservation& each : reserved_) longest = std::max(longest, each.largest.longest);
  std::size_t bytes = 0;
  for (const Reservation& each : reserved_) {
    BatchShape shape = each.largest;
    shape.longest = longest;
    bytes = std::max(bytes, activation_bytes(shape, each.probes));
  }
  forward_.reset();  // its arena goes before the new one comes
  Arena arena(backend().allocate(bytes));
  forward_ = std::make_unique<Forward>(plan_, backend_, description_, *weights_, std::move(arena));
  forward_->take_rope(longest);
  forward_->before_begin = forward_->arena.mark();
  const Probe unperturbed{};
  backend().upload({&unperturbed, 1}, NoiseKind::gaussian, forward_->one_probe);
  backend().prepare(workload(largest, probes));
}

bool Decoder::Reservation::covers(const Reservation& other) const {
  return other.largest.tokens <= largest.tokens && other.largest.sequences <= largest.sequences &&
         other.largest.loss_rows <= largest.loss_rows && other.largest.targets <= largest.targets &&
         other.largest.longest <= largest.longest &&
         (largest.has_rows_without_loss() || !other.largest.has_rows_without_loss()) &&
         other.probes <= probes;
}

std::size_t Decoder::arena_high_water() const { return forward_ ? forward_->arena.high_water() : 0; }

std::int64_t Decoder::first_perturbed_layer() const {
  const Forward order{plan_, nullptr, description_, *weights_, Arena()};
  return order.first_perturbed_block() / order.blocks_per_layer();
}

void Decoder::begin(const DeviceBatch& batch) {
  if (weights_->buffers.empty() || !forward_) throw Error("a decoder runs only after load() and reserve()");
  forward_->batch = &batch;
  forward_->shape = batch.shape;
  forward_->begin();
}

void Decoder::check_begun() const {
  if (!forward_ || forward_->batch == nullptr) throw Error("a decoder evaluates only after begin()");
}

void Decoder::evaluate(const ProbeTable& table, View out) {
  check_begun();
  backend().repeat(forward_->key(table, out), [&] {
    backend().score(table, *forward_->batch, weights_->head, forward_->finish(table), out);
  });
}

void Decoder::logits(const ProbeTable& table, View out) {
  check_begun();
  backend().product(table, weights_->head, 0, forward_->finish(table), {{out}}, {});
}

}  // namespace mezzo
