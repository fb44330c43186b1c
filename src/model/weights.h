#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/layers.h"

namespace mezzo {

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

  const Weight& embedding(PartIndex part) const {
    return std::get<Weight>(parts_.at(part));
  }  ///< [rows, cols]
  const Norm& norm(PartIndex part) const { return std::get<Norm>(parts_.at(part)); }
  const Product& product(PartIndex part) const { return std::get<Product>(parts_.at(part)); }

 private:
  void allocate(Backend& backend);

  /// A view of parts_ that owns memory: all do but those of tied products.
  struct Stored {
    View* view;
    std::size_t bytes;  ///< up to where the next one begins
  };

  const DecoderSpec& spec_;
  std::vector<std::variant<Weight, Norm, Product>> parts_;  ///< of spec_.parts; an embedding is its table
  std::vector<Stored> stored_;
  /// Of stored_, one behind the other: what is planned alike lies equally far apart, as experts do.
  std::optional<Buffer> storage_;
};

}  // namespace mezzo
