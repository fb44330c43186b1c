#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/layers.h"

namespace mezzo {

/// Bytes up to the next place where a weight may begin.
std::size_t padded(std::size_t bytes);

/// A part with its weights: an embedding is its table.
using Operand = std::variant<Weight, Norm, Product>;
/// The tensors of an operand: its weight and, where it has one, its bias.
std::array<View*, 2> tensors_of(Operand& operand);

/// Rows of a weight, or columns of a vector, that are a tensor of the model's files.
struct TensorPiece {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::optional<DenseNoise> noise;  ///< none: it is not trained
  float offset = 0.0f;              ///< of what is read to what is trained
};
/// A tensor of an operand that is trained itself, or a piece of which is.
struct TrainedTensor {
  std::size_t place = 0;         ///< in tensors_of()
  bool vector = false;           ///< [1, n]: pieces are columns
  std::int64_t stored_rows = 0;  ///< of its storage, at least its own
  std::vector<TensorPiece> pieces;

  bool whole() const {
    return std::ranges::all_of(pieces, [](const TensorPiece& piece) { return piece.noise.has_value(); });
  }
};

/// The weights of a decoder, part by part: the operands of its forward, views of a backend's buffers that are
/// owned here. They have no data until load() or randomize().
class DecoderWeights {
 public:
  /// Plans the strides for `plan`'s device. `plan` and `spec` must outlive the weights. Error for a
  /// perturbation of no part of this model, or of another shape.
  DecoderWeights(const DevicePlan& plan, const DecoderSpec& spec, const Perturbations& perturbations);
  DecoderWeights(const DecoderWeights&) = delete;
  DecoderWeights& operator=(const DecoderWeights&) = delete;

  void load(Backend& backend, const ModelFiles& files, const LoadProgress& progress);
  /// Rounds the trainables that are weights into their places.
  void refresh(Backend& backend);
  void randomize(Backend& backend, std::uint64_t seed, float scale);

  std::size_t bytes() const;  ///< of the backend's memory, once loaded
  bool loaded() const { return storage_.has_value(); }

  const Operand& operand(PartIndex part) const { return parts_.at(part); }
  const Weight& embedding(PartIndex part) const {
    return std::get<Weight>(parts_.at(part));
  }  ///< [rows, cols]
  const Norm& norm(PartIndex part) const { return std::get<Norm>(parts_.at(part)); }
  const Product& product(PartIndex part) const { return std::get<Product>(parts_.at(part)); }

  /// Of a part; a weight that is trained as a whole has no data of its own.
  std::span<const TrainedTensor> trained(PartIndex part) const { return trained_.at(part); }
  /// Whether any part has such tensors.
  bool trains_tensors() const {
    return std::ranges::any_of(trained_, [](const auto& of_part) { return !of_part.empty(); });
  }

 private:
  void allocate(Backend& backend);

  /// A view of parts_ that owns memory: all do but those of tied products.
  struct Stored {
    View* view;
    std::size_t bytes;  ///< up to where the next one begins
  };

  const DecoderSpec& spec_;
  std::vector<Operand> parts_;                       ///< of spec_.parts
  std::vector<std::vector<TrainedTensor>> trained_;  ///< of spec_.parts
  std::vector<Stored> stored_;
  /// Of stored_, one behind the other: what is planned alike lies equally far apart, as experts do.
  std::optional<Buffer> storage_;
};

}  // namespace mezzo
