#include "weights.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

std::size_t bytes_of(const DevicePlan& plan, const View& view) {
  const std::int64_t rows = view.rows > 1 ? plan.weight_rows(view.rows) : view.rows;
  return static_cast<std::size_t>(rows * view.row_stride) * size_of(view.dtype);
}

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

DecoderWeights::DecoderWeights(const DevicePlan& plan, const Description& description,
                               const Perturbations& perturbations)
    : plan_(plan), description_(description) {
  const Description& d = description_;

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
  std::size_t perturbed = 0;  // parts
  const auto product = [&](const std::string& prefix, const std::vector<std::string>& names,
                           const std::vector<std::int64_t>& rows, std::int64_t in, bool bias) {
    Product result{.name = prefix + names[0], .weight = {}, .bias = {}, .parts = {}};
    std::int64_t out = 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
      ProductPart part{.name = prefix + names[i], .row_begin = out, .rows = rows[i]};
      if (const auto found = perturbations.find(part.name); found != perturbations.end()) {
        part.perturbation = found->second;
        const LowRankTail* tail = part.tail();
        if (tail != nullptr &&
            (tail->a.cols != in || tail->b.rows != part.rows || tail->a.rows != tail->b.cols)) {
          throw Error("the tail [{}, {}] x [{}, {}] does not fit {}, a product [{}, {}]", tail->b.rows,
                      tail->b.cols, tail->a.rows, tail->a.cols, part.name, part.rows, in);
        }
        ++perturbed;
      }
      out += part.rows;
      result.parts.push_back(std::move(part));
    }
    result.weight = matrix(out, in, result.tail_ranks());
    result.stored_rows = plan.weight_rows(out);
    if (bias) result.bias = vector(out, dtype);
    return result;
  };

  embedding = matrix(d.vocabulary, d.hidden, 0);
  if (d.positions == PositionKind::learned) positions = matrix(d.max_positions, d.hidden, 0);
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
    layers.push_back(std::move(layer));
  }
  final_norm = norm();
  head = product("", {d.names.head}, {d.vocabulary}, d.hidden, d.head_bias);
  if (perturbed != perturbations.size()) {
    throw Error("{} parts of a model were to be perturbed, but it has only {} of them", perturbations.size(),
                perturbed);
  }

  const auto own = [&](View& view) {
    if (view.rows > 0) storage_.push_back(&view);
  };
  const auto own_norm = [&](Norm& n) {
    own(n.weight);
    own(n.bias);
  };
  const auto own_product = [&](Product& p) {
    own(p.weight);
    own(p.bias);
  };
  own(embedding);
  own(positions);
  for (Layer& layer : layers) {
    own_norm(layer.attention_norm);
    own_norm(layer.mlp_norm);
    for (Product* p : {&layer.qkv, &layer.attention_output, &layer.mlp_input, &layer.mlp_output})
      own_product(*p);
  }
  own_norm(final_norm);
  if (!d.tied_head) own(head.weight);
  own(head.bias);
}

void DecoderWeights::allocate(Backend& backend) {
  if (!buffers_.empty()) throw Error("a decoder's weights were to be loaded twice");
  for (View* view : storage_) {
    buffers_.push_back(backend.allocate(bytes_of(plan_, *view)));
    view->data = buffers_.back().data();
  }
  if (description_.tied_head) head.weight = embedding;
}

void DecoderWeights::randomize(Backend& backend, std::uint64_t seed, float scale) {
  allocate(backend);
  for (const View* view : storage_) {
    if (view->rows > 1) {
      backend.fill_normal(*view, seed++, scale);
    } else {
      const std::vector<float> zeros(static_cast<std::size_t>(view->cols), 0.0f);
      backend.load(*view, DType::f32, zeros.data(), false);
    }
  }
  const std::vector<float> ones(static_cast<std::size_t>(description_.hidden), 1.0f);
  const auto set_norm = [&](const Norm& norm) {
    if (norm.weight) backend.load(norm.weight, DType::f32, ones.data(), false);
  };
  for (const Layer& layer : layers) {
    set_norm(layer.attention_norm);
    set_norm(layer.mlp_norm);
  }
  set_norm(final_norm);
  backend.synchronize();
}

void DecoderWeights::load(Backend& backend, const ModelFiles& files, const LoadProgress& progress) {
  allocate(backend);
  const Description& d = description_;
  WeightLoader loader(backend, files, progress);
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
  loader.load(d.names.prefix + d.names.embedding + ".weight", embedding);
  if (positions) loader.load(d.names.prefix + d.names.position_embedding + ".weight", positions);
  for (std::int64_t i = 0; i < d.layers; ++i) {
    const Layer& layer = layers[static_cast<std::size_t>(i)];
    load_norm(d.layer_prefix(i) + d.names.attention_norm, layer.attention_norm);
    if (!d.parallel_residual) load_norm(d.layer_prefix(i) + d.names.mlp_norm, layer.mlp_norm);
    for (const Product* product :
         {&layer.qkv, &layer.attention_output, &layer.mlp_input, &layer.mlp_output}) {
      load_product(*product, d.transposed);
    }
  }
  load_norm(d.names.prefix + d.names.final_norm, final_norm);
  if (!d.tied_head) loader.load(d.names.head + ".weight", head.weight);
  if (head.bias) loader.load(d.names.head + ".bias", head.bias);
}

std::size_t DecoderWeights::bytes() const {
  std::size_t bytes = 0;
  for (const View* view : storage_) bytes += bytes_of(plan_, *view);
  return bytes;
}

}  // namespace mezzo
