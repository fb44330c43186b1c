#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/model/decoder.h"

namespace mezzo {

/// The weights of a decoder: the operands of its forward, views of buffers of a backend. Without data until
/// load() or randomize().
class DecoderWeights {
 public:
  struct Layer {
    Norm attention_norm;
    Norm mlp_norm;  ///< unused with a parallel residual
    Product qkv, attention_output, mlp_input, mlp_output;
  };

  /// Plans the strides for `plan`'s device. Error for a perturbation of no part of this model, or of another
  /// shape.
  DecoderWeights(const DevicePlan& plan, const Description& description, const Perturbations& perturbations);
  DecoderWeights(const DecoderWeights&) = delete;
  DecoderWeights& operator=(const DecoderWeights&) = delete;

  void load(Backend& backend, const ModelFiles& files, const LoadProgress& progress);
  void randomize(Backend& backend, std::uint64_t seed, float scale);

  std::size_t bytes() const;  ///< of the backend's memory, once loaded
  bool loaded() const { return !buffers_.empty(); }

  View embedding;  ///< [vocabulary, H]
  View positions;  ///< [max positions, H]; no rows: none are learned
  std::vector<Layer> layers;
  Norm final_norm;
  Product head;

 private:
  void allocate(Backend& backend);

  const DevicePlan& plan_;
  const Description description_;
  std::vector<View*> storage_;   ///< every view above that owns memory
  std::vector<Buffer> buffers_;  ///< of storage_, in its order
};

}  // namespace mezzo
