#include "weights.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "mezzo/core/error.h"
#include "overloaded.h"

namespace mezzo {
namespace {

/// Copies tensors of the model's files into views of a backend's memory, a piece at a time: the mapped pages
/// of a piece are given back before the next is touched.
class WeightLoader {
 public:
  WeightLoader(Backend& backend, const ModelFiles& files, const DecoderSpec& spec,
               const LoadProgress& progress)
      : backend_(backend), files_(files), progress_(progress) {
    for (const WeightSpec& weight : weight_specs(spec)) total_ += files.weight(weight.name).bytes;
  }

  /// The tensor `name` has no place here.
  void pass_over(const std::string& name) { loaded_ += files_.weight(name).bytes; }

  /// The whole tensor `name` into `destination`, plus `offset`; stored as [cols, rows] when `transposed`.
  void load(const std::string& name, const View& destination, bool transposed = false, float offset = 0.0f) {
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
      const View place = transposed ? destination.columns(row, count) : destination.row_range(row, count);
      if (offset == 0.0f) {
        backend_.load(place, tensor.dtype, aligned(piece), transposed);
      } else {
        piece.shape = {count, stored_cols};
        values_.resize(static_cast<std::size_t>(count * stored_cols));
        to_float(piece, values_);
        for (float& value : values_) value += offset;
        backend_.load(place, DType::f32, values_.data(), transposed);
      }
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
  std::vector<float> values_;
  std::size_t loaded_ = 0;
  std::size_t total_ = 0;
};

/// Makes the operands of a device without their data.
class PartPlanner {
 public:
  PartPlanner(const DevicePlan& device, const Perturbations& perturbations)
      : device_(device), perturbations_(perturbations) {}

  Weight plan(const EmbeddingSpec& spec) const { return device_.place_weight(spec.rows, spec.cols, 0); }

  Norm plan(const NormSpec& spec) const {
    Norm norm{
        .kind = spec.kind, .weight = vector(spec.width, DType::f32), .bias = {}, .epsilon = spec.epsilon};
    if (spec.kind == NormKind::layer) norm.bias = vector(spec.width, DType::f32);
    return norm;
  }

  Product plan(const ProductSpec& spec) {
    Product product{.name = spec.name(), .weight = {}, .bias = {}, .parts = {}, .score_cap = spec.score_cap};
    std::int64_t out = 0;
    for (const LinearModule& module : spec.modules) {
      ProductPart part{.name = module.name, .row_begin = out, .rows = module.out};
      if (const auto found = perturbations_.find(part.name); found != perturbations_.end()) {
        part.perturbation = found->second;
        check_fits(part, spec.in());
        used_.insert(part.name);
      }
      out += part.rows;
      product.parts.push_back(std::move(part));
    }
    // Experts lie alike, whichever of them are perturbed: tails have no columns there.
    product.weight = device_.place_weight(out, spec.in(), is_expert(spec.role) ? 0 : product.tail_ranks());
    if (spec.bias) product.bias = vector(out, device_.activation_dtype());
    return product;
  }

  std::vector<TrainedTensor> trained(const EmbeddingSpec& spec, const Operand& table) {
    std::vector<TrainedTensor> tensors;
    add(tensors, 0, table, {piece(spec.name + ".weight", 0, spec.rows, spec.rows, spec.cols)});
    return tensors;
  }

  std::vector<TrainedTensor> trained(const NormSpec& spec, const Operand& norm) {
    std::vector<TrainedTensor> tensors;
    TensorPiece weight = piece(spec.name + ".weight", 0, spec.width, 1, spec.width);
    weight.offset = spec.weight_offset;
    add(tensors, 0, norm, {weight});
    if (spec.kind == NormKind::layer)
      add(tensors, 1, norm, {piece(spec.name + ".bias", 0, spec.width, 1, spec.width)});
    return tensors;
  }

  std::vector<TrainedTensor> trained(const ProductSpec& spec, const Operand& product) {
    std::vector<TensorPiece> weights, biases;
    std::int64_t row = 0;
    for (const LinearModule& module : spec.modules) {
      weights.push_back(piece(module.name + ".weight", row, module.out, module.out, module.in));
      if (spec.bias) biases.push_back(piece(module.name + ".bias", row, module.out, 1, module.out));
      row += module.out;
    }
    std::vector<TrainedTensor> tensors;
    if (!spec.tied) add(tensors, 0, product, std::move(weights));
    add(tensors, 1, product, std::move(biases));
    if (in_mixture(spec.role) && !tensors.empty())
      throw Error("{}: dense noise over a part of a mixture of experts is not built", spec.name());
    return tensors;
  }

  std::size_t perturbed() const { return used_.size(); }  ///< of the perturbations, so far

 private:
  TensorPiece piece(const std::string& name, std::int64_t first, std::int64_t count, std::int64_t rows,
                    std::int64_t cols) {
    TensorPiece piece{.first = first, .count = count, .noise = {}};
    const auto found = perturbations_.find(name);
    if (found == perturbations_.end()) return piece;
    const auto* const noise = std::get_if<DenseNoise>(&found->second);
    if (noise == nullptr) throw Error("{}: a {} is not of a tensor", name, name_of(found->second));
    if (noise->value.rows != rows || noise->value.cols != cols) {
      throw Error("the trainable [{}, {}] is not {}, which is [{}, {}]", noise->value.rows, noise->value.cols,
                  name, rows, cols);
    }
    piece.noise = *noise;
    used_.insert(name);
    return piece;
  }

  static void add(std::vector<TrainedTensor>& tensors, std::size_t place, const Operand& operand,
                  std::vector<TensorPiece> pieces) {
    const auto is_trained = [](const TensorPiece& piece) { return piece.noise.has_value(); };
    if (std::ranges::none_of(pieces, is_trained)) return;
    const auto* const product = std::get_if<Product>(&operand);
    const Weight* const weight = product != nullptr ? &product->weight : std::get_if<Weight>(&operand);
    TrainedTensor tensor{.place = place, .vector = true, .stored_rows = 1, .pieces = std::move(pieces)};
    if (weight != nullptr && place == 0) {
      tensor.vector = false;
      tensor.stored_rows = std::max(weight->stored_rows, weight->out());
    }
    tensors.push_back(std::move(tensor));
  }

  static void check_fits(const ProductPart& part, std::int64_t in) {
    const LowRankTail* tail = part.tail();
    if (tail == nullptr) throw Error("{}: {} is not of a module", part.name, name_of(part.perturbation));
    if (tail->a.cols != in || tail->b.rows != part.rows || tail->a.rows != tail->b.cols) {
      throw Error("the tail [{}, {}] x [{}, {}] does not fit {}, a product [{}, {}]", tail->b.rows,
                  tail->b.cols, tail->a.rows, tail->a.cols, part.name, part.rows, in);
    }
    if (tail->outer && (tail->weight.rows != part.rows || tail->weight.cols != in)) {
      throw Error("the trainable [{}, {}] is not the weight of {}, a product [{}, {}]", tail->weight.rows,
                  tail->weight.cols, part.name, part.rows, in);
    }
  }
  static View vector(std::int64_t count, DType dtype) { return dense(nullptr, dtype, 1, count); }

  const DevicePlan& device_;
  const Perturbations& perturbations_;
  std::set<std::string> used_;  // the keys that had a part
};

}  // namespace

std::size_t padded(std::size_t bytes) {
  constexpr std::size_t alignment = 256;
  return (bytes + alignment - 1) / alignment * alignment;
}

std::array<View*, 2> tensors_of(Operand& operand) {
  return std::visit(Overloaded{[](Weight& weight) {
                                 return std::array<View*, 2>{&weight.codes, nullptr};
                               },
                               [](Norm& norm) {
                                 return std::array{&norm.weight, &norm.bias};
                               },
                               [](Product& product) {
                                 return std::array{&product.weight.codes, &product.bias};
                               }},
                    operand);
}

DecoderWeights::DecoderWeights(const DevicePlan& plan, const DecoderSpec& spec,
                               const Perturbations& perturbations)
    : spec_(spec) {
  PartPlanner planner(plan, perturbations);
  for (const Part& part : spec_.parts) {
    std::visit(
        [&](const auto& of) {
          parts_.emplace_back(planner.plan(of));
          trained_.push_back(planner.trained(of, parts_.back()));
        },
        part);
  }
  for (PartIndex part = 0; part < parts_.size(); ++part) {  // a tied table may come behind its product
    const auto* const product = std::get_if<ProductSpec>(&spec_.parts[part]);
    if (product == nullptr || !product->tied) continue;
    for (const TrainedTensor& table : trained_[*product->tied]) trained_[part].push_back(table);
  }
  if (planner.perturbed() != perturbations.size()) {
    throw Error("{} parts of a model were to be perturbed, but it has only {} of them", perturbations.size(),
                planner.perturbed());
  }
  for (PartIndex part = 0; part < parts_.size(); ++part) {
    const auto own = [&](Weight& weight) {
      // Made from its trainables for each probe.
      const auto is_made = [](const TrainedTensor& of) { return of.place == 0 && of.whole(); };
      if (std::ranges::none_of(trained_[part], is_made))
        stored_.push_back({&weight.codes, padded(weight.bytes())});
    };
    const auto own_vector = [&](View& view) {
      if (view.rows > 0)
        stored_.push_back({&view, padded(static_cast<std::size_t>(view.cols) * size_of(view.dtype))});
    };
    const auto own_norm = [&](Norm& norm) {
      own_vector(norm.weight);
      own_vector(norm.bias);
    };
    const auto own_product = [&](Product& product) {
      if (!spec_.at<ProductSpec>(part).tied) own(product.weight);
      own_vector(product.bias);
    };
    std::visit(Overloaded{own, own_norm, own_product}, parts_[part]);
  }
}

std::size_t DecoderWeights::bytes() const {
  std::size_t bytes = 0;
  for (const Stored& stored : stored_) bytes += stored.bytes;
  return bytes;
}

void DecoderWeights::allocate(Backend& backend) {
  if (loaded()) throw Error("a decoder's weights were to be loaded twice");
  storage_ = backend.allocate(bytes());
  auto* next = static_cast<std::byte*>(storage_->data());
  for (const Stored& stored : stored_) {
    stored.view->data = next;
    if (next != nullptr) next += stored.bytes;  // null: a backend that only counts
  }
  for (PartIndex part = 0; part < parts_.size(); ++part) {
    const auto* spec = std::get_if<ProductSpec>(&spec_.parts[part]);
    if (spec != nullptr && spec->tied) std::get<Product>(parts_[part]).weight = embedding(*spec->tied);
  }
}

void DecoderWeights::randomize(Backend& backend, std::uint64_t seed, float scale) {
  allocate(backend);
  const auto fill = [&](const View& vector, float value) {
    if (!vector) return;
    const std::vector<float> values(static_cast<std::size_t>(vector.cols), value);
    backend.load(vector, DType::f32, values.data(), false);
  };
  for (PartIndex part = 0; part < parts_.size(); ++part) {
    for (const TrainedTensor& tensor : trained_[part]) {
      for (const TensorPiece& piece : tensor.pieces) {
        if (!piece.noise || !piece.noise->value) continue;
        if (tensor.vector) {
          fill(piece.noise->value, tensor.place == 0 ? 1.0f - piece.offset : 0.0f);
        } else {
          backend.fill_normal(piece.noise->value, seed++, scale);
        }
      }
    }
  }
  for (PartIndex part = 0; part < parts_.size(); ++part) {
    const auto fill_weight = [&](const View& codes) {
      if (codes) backend.fill_normal(codes, seed++, scale);
    };
    const auto fill_embedding = [&](const EmbeddingSpec&) { fill_weight(embedding(part).codes); };
    const auto fill_norm = [&](const NormSpec&) {
      fill(norm(part).weight, 1.0f);
      fill(norm(part).bias, 0.0f);
    };
    const auto fill_product = [&](const ProductSpec& spec) {
      if (!spec.tied) fill_weight(product(part).weight.codes);
      fill(product(part).bias, 0.0f);
      for (const ProductPart& module : product(part).parts) {
        if (module.tail() != nullptr && module.tail()->weight)
          backend.fill_normal(module.tail()->weight, seed++, scale);
      }
    };
    std::visit(Overloaded{fill_embedding, fill_norm, fill_product}, spec_.parts[part]);
  }
  backend.synchronize();
}

void DecoderWeights::refresh(Backend& backend) {
  for (PartIndex part = 0; part < parts_.size(); ++part) {
    const auto* const product = std::get_if<Product>(&parts_[part]);
    if (product == nullptr) continue;
    for (const ProductPart& module : product->parts) {
      const LowRankTail* const tail = module.tail();
      if (tail == nullptr || !tail->weight) continue;
      backend.assign(product->weight.codes.row_range(module.row_begin, module.rows), tail->weight);
    }
  }
}

void DecoderWeights::load(Backend& backend, const ModelFiles& files, const LoadProgress& progress) {
  allocate(backend);
  WeightLoader loader(backend, files, spec_, progress);
  const auto load_weight = [&](const std::string& module, const View& codes, bool transposed) {
    if (codes) loader.load(module + ".weight", codes, transposed);
    else loader.pass_over(module + ".weight");
  };
  for (PartIndex part = 0; part < parts_.size(); ++part) {
    const auto load_embedding = [&](const EmbeddingSpec& spec) {
      load_weight(spec.name, embedding(part).codes, false);
    };
    const auto load_norm = [&](const NormSpec& spec) {
      loader.load(spec.name + ".weight", norm(part).weight, false, spec.weight_offset);
      if (norm(part).bias) loader.load(spec.name + ".bias", norm(part).bias);
    };
    const auto load_product = [&](const ProductSpec& spec) {
      const Product& loaded = product(part);
      std::int64_t row = 0;
      for (const LinearModule& module : spec.modules) {
        if (!spec.tied) {
          const View& codes = loaded.weight.codes;
          load_weight(module.name, codes ? codes.row_range(row, module.out) : codes, module.transposed);
        }
        if (spec.bias) loader.load(module.name + ".bias", loaded.bias.columns(row, module.out));
        row += module.out;
      }
    };
    std::visit(Overloaded{load_embedding, load_norm, load_product}, spec_.parts[part]);
  }
}

}  // namespace mezzo
