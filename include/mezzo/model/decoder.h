#pragma once
// The forward of a decoder, written once over the operations of a Backend.
//
//   Decoder decoder(backend, description, perturbations);
//   decoder.load(files, {});                       // weights: file -> device
//   decoder.reserve(largest_shape, probes);
//   for each slice { decoder.begin(batch);  for each group decoder.evaluate(table, scores); }
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "mezzo/backend/backend.h"
#include "mezzo/model/description.h"
#include "mezzo/model/layers.h"
#include "mezzo/model/model_files.h"
#include "mezzo/model/perturbations.h"

namespace mezzo {

class DecoderWeights;
class Forward;

/// Told how many bytes of the weight files have been loaded, of how many.
using LoadProgress = std::function<void(std::size_t loaded, std::size_t total)>;

/// A model on a backend. Weights and activations are owned here; what perturbs them are views of the
/// caller's. Activations are shared by all probes until the first perturbed operation: what lies below it
/// runs once a slice, in begin(), and q, k, v are shared or per-probe each on its own. Rows that no loss
/// reads leave the last layer after its keys and values.
class Decoder {
 public:
  /// Allocates nothing: sizes can be asked before anything is loaded. Without perturbations it is the base
  /// model alone. Error for a perturbation of no part of this model, or of another shape.
  Decoder(Backend& backend, const Description& description, const Perturbations& perturbations);
  /// The same without a device: only sizes can be asked, and the perturbations need no data.
  Decoder(const DevicePlan& plan, const Description& description, const Perturbations& perturbations);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// Copies the weights to the backend tensor by tensor, giving mapped pages back as it goes.
  void load(const ModelFiles& files, const LoadProgress& progress);
  /// In place of load(): matrices of normals times `scale`, norm weights 1, biases 0.
  void randomize(std::uint64_t seed, float scale);

  /// Takes the weights that are trained themselves from their trainables, as an update has left them: behind
  /// every update. load() and randomize() do it too; randomize() fills these trainables first.
  void refresh();

  const Description& description() const { return description_; }
  std::size_t weight_bytes() const;  ///< of the backend's memory, once loaded
  /// Of the arena that reserve() would make: exact, by the same code that runs the forward.
  std::size_t activation_bytes(const BatchShape& largest, std::int64_t probes) const;
  Workload workload(const BatchShape& largest, std::int64_t probes) const;
  /// Makes the arena and has the backend make its scratch. May be called for several workloads: one arena and
  /// one scratch serve them all.
  void reserve(const BatchShape& largest, std::int64_t probes);
  std::size_t arena_high_water() const;

  /// The first layer of which an operation depends on the probe; layers() without perturbations.
  std::int64_t first_perturbed_layer() const;

  /// Uploads a batch for begin() or decode(). Its positions become rows of the rotary tables, which are
  /// others where long sequences turn by angles of their own (longrope; a sequence is as long as it has
  /// become).
  void upload(const PackedBatch& packed, DeviceBatch& batch) const;
  /// Embeds the batch, which upload() filled, and runs what all probes share. It must stay as it is until the
  /// last evaluate() of it.
  void begin(const DeviceBatch& batch);
  /// Continues from begin() for one group. out: [1, Q] fp32 for each probe, log p(target token | read row).
  void evaluate(const ProbeTable& table, View out);
  /// The same, but the logits of the read rows. out: [R, vocabulary] for each probe, in the activations'
  /// dtype.
  void logits(const ProbeTable& table, View out);

  // ---- generation: mezzo/core/batch.h says what such batches have. reserve() for shapes with a cache.
  /// Continues from begin() with a batch of prompts for one group: leaves its keys and values in the cache
  /// and chooses the tokens behind its targets. out: [1, Q] i32 for each probe.
  void prefill(const ProbeTable& table, const Sampling& sampling, View out);
  /// One token more of each slot's sequence. No begin(); the batch must stay until the next wait.
  void decode(const DeviceBatch& batch, const ProbeTable& table, const Sampling& sampling, View out);

 private:
  /// One call of reserve().
  struct Reservation {
    BatchShape largest;
    std::int64_t probes = 0;
    bool covers(const Reservation& other) const;
  };

  Decoder(const DevicePlan& plan, Backend* backend, const Description& description,
          const Perturbations& perturbations);

  Backend& backend() const;
  void check_begun() const;

  const DevicePlan& plan_;
  Backend* backend_;  ///< null: only sizes
  const Description description_;
  const DecoderSpec spec_;
  std::unique_ptr<DecoderWeights> weights_;
  std::vector<Reservation> reserved_;
  std::unique_ptr<Forward> forward_;  ///< after reserve()
};

}  // namespace mezzo
