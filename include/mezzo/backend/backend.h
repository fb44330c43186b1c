#pragma once
// The one compute interface: DevicePlan says sizes without a device, Backend computes on one.
//
// Order.    A backend is one device with one stream. Operations enqueue in order. `read`, `hash` and
//           `synchronize` wait; nothing else does. A view given to an operation must stay valid until the
//           next wait.
// Shapes.   An activation is a View of T rows for each of P probes: P is table.count(), T the rows of a
//           slice. Probe stride 0 means that one matrix serves all probes.
// Sharing.  An output is shared only if everything that it depends on is shared. The first perturbed
//           operation makes a per-probe output of a shared input.
// Bits.     What a probe gets depends neither on the other probes of the table, nor on its place there, nor
//           on the number of threads (batch invariance, docs/numerics.md).
// Errors.   DeviceError.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mezzo/backend/buffer.h"
#include "mezzo/backend/mixture.h"
#include "mezzo/backend/probes.h"
#include "mezzo/backend/product.h"
#include "mezzo/backend/trainables.h"
#include "mezzo/core/batch.h"
#include "mezzo/core/sampling.h"
#include "mezzo/core/types.h"

namespace mezzo {

enum class NormKind : std::uint8_t { rms, layer };
struct Norm {
  NormKind kind = NormKind::rms;
  View weight;  ///< [1, H] fp32
  View bias;    ///< [1, H] fp32, or empty
  float epsilon = 1e-5f;
};

enum class Activation : std::uint8_t { none, silu, gelu_tanh, gelu_erf, relu };

/// A product's tail end. gated: the two parts are gate | up and y = activation(gate) * up, half as wide.
struct Epilogue {
  Activation activation = Activation::none;
  bool gated = false;
};

enum class RopeStyle : std::uint8_t { half_split, interleaved };
/// Rotary positions over the first `dims` of each head (partial where dims < head_dim).
struct Rope {
  RopeStyle style = RopeStyle::half_split;
  std::int64_t dims = 0;
  View cosines;  ///< [max positions, dims / 2] fp32, scaling of frequencies included
  View sines;    ///< [max positions, dims / 2] fp32
};

/// A PackedBatch in the backend's memory; every view is one row of i32. Tokens and target tokens have a probe
/// stride where each probe has its own.
struct DeviceBatch {
  BatchShape shape;
  std::int64_t probes = 0;          ///< PackedBatch::probes
  View tokens, positions;           ///< [T]
  View offsets;                     ///< [S + 1]
  View loss_rows;                   ///< [R]
  View target_rows, target_tokens;  ///< [Q]
  // Of generation; of decoding each probe's own.
  View cache_rows;                     ///< [T]
  View prompt_begins, prompt_lengths;  ///< [T] of decoding alone
  View draw_keys;                      ///< [2 Q]
  View draw_places;                    ///< [Q]
  Buffer storage;

  bool decodes() const { return prompt_begins.cols > 0; }
};

/// What probe p has of a batch with tokens of its own, as a batch of that probe alone. It views the storage.
DeviceBatch of_probe(const DeviceBatch& batch, std::int64_t p);

/// Keys as queries meet them (normed, rotated) and values of one attention layer: [rows, kv_heads * head_dim]
/// each, in the activations' dtype, shared where no probe changes them.
struct KeyValues {
  View k, v;
};

/// One attention layer's cache. A sequence's tokens are those of its prompt, rows of `prompts` that several
/// sequences may share, and behind them its own new ones: slot s of a probe has the rows
/// [s, s + 1) * new_tokens of `own`.
struct LayerCache {
  KeyValues prompts, own;
  std::int64_t new_tokens = 0;
};

struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  ///< divides heads; query head i reads kv head i / (heads / kv_heads)
  std::int64_t head_dim = 0;
  float scale = 1.0f;       ///< of q.k before the softmax
  std::int64_t window = 0;  ///< keys that a query sees, the last ones up to its own; 0: all
  float soft_cap = 0.0f;    ///< c of c tanh(scale q.k / c); 0: none

  bool operator==(const AttentionShape&) const = default;
};

/// A product and what is asked of it.
struct PlannedProduct {
  PlannedProduct(const Product* planned, Epilogue with = {}, bool by_score = false)
      : product(planned), epilogue(with), scored(by_score) {}
  PlannedProduct(const Product* expert, Epilogue with, const RoutingRule& rule)
      : product(expert), epilogue(with), routing(rule) {}

  const Product* product;
  Epilogue epilogue;
  bool scored = false;                      ///< by score(), not by product()
  bool to_fp32 = false;                     ///< y is fp32, whatever activations are
  std::optional<RoutingRule> routing = {};  ///< of an expert: by expert_product()
};

/// What a backend must make room for before a run.
struct Workload {
  BatchShape largest;                    ///< elementwise maximum over all slices
  std::int64_t probes = 1;               ///< most probes of a forward
  std::vector<PlannedProduct> products;  ///< every product that will run
  AttentionShape attention;
};

/// What is known of a kind of device without one being there: enough to say how much memory a run will take.
class DevicePlan {
 public:
  virtual ~DevicePlan() = default;

  virtual std::string name() const = 0;        ///< "reference", "cpu", "cuda"
  virtual DType activation_dtype() const = 0;  ///< of x, q, k, v and biases
  virtual DType residual_dtype() const = 0;    ///< of h
  /// Whether products may have parts with this perturbation, and such a weight.
  virtual bool serves(const Perturbation& perturbation) const = 0;
  virtual bool serves(const Weight& weight) const = 0;
  /// Whether mixtures may have so many experts, and choose so many.
  virtual bool serves(const RoutingRule&) const { return true; }
  /// Whether the products of such experts take their rows from where they are: dispatch_product().
  virtual bool gathers_rows(const Product&, const Epilogue&) const { return false; }
  /// Elements between the rows of an activation that feeds `product`: room for its tail behind `in` columns,
  /// where the weight's rows have that, too.
  virtual std::int64_t input_stride(const Product& product) const = 0;
  /// How a weight [out, in] whose parts have tails of `tail_ranks` ranks in all lies best: element type,
  /// stride, rows of storage, room for the tails' columns. It has no data yet.
  virtual Weight place_weight(std::int64_t out, std::int64_t in, std::int64_t tail_ranks) const = 0;
  /// Bytes of the backend's own scratch for a workload: scores, tails, noise, library workspaces.
  virtual std::size_t scratch_bytes(const Workload& workload) const = 0;
};

/// DeviceError that names the part or the weight and what it asks for, unless the device serves all products
/// of a workload. choose() and prepare() begin with it, so that nothing is refused in the middle of a run.
void check_served(const DevicePlan& plan, const Workload& workload);

class Backend : public DevicePlan {
 public:
  // ---- the device
  virtual std::string device() const = 0;  ///< for people: processor or card, threads
  /// What can change bits (library versions, BLAS core, chosen algorithms): part of a run's record.
  virtual std::map<std::string, std::string> fingerprint() const = 0;
  /// From here on chooses as the run or the rank with this fingerprint did, as far as that can be.
  virtual void keep(const std::map<std::string, std::string>& fingerprint) = 0;
  virtual std::size_t memory_available() const = 0;  ///< bytes that an arena may still take
  /// Chooses algorithms for a workload, whose products need no storage yet. DeviceError as from
  /// check_served(). What is chosen depends on the products and on the largest slice of the first workload,
  /// not on the probes of a forward.
  virtual void choose(const Workload& workload) = 0;
  /// Chooses, and allocates the scratch of scratch_bytes(); to be called before the first operation of a run,
  /// and once for each further workload: the scratch then serves all of them. No operation allocates.
  virtual void prepare(const Workload& workload) = 0;

  // ---- memory
  virtual Buffer allocate(std::size_t bytes) = 0;  ///< aligned to 256 bytes; contents undefined
  /// Host to device with conversion of the element type. `source` is dense [rows, cols], or [cols, rows] when
  /// `transposed`. May return before the copy is done only if `source` was copied.
  virtual void load(View destination, DType source_dtype, const void* source, bool transposed) = 0;
  /// destination = source in the backend's memory, fp32 or of the destination's element type, rounded to it:
  /// a weight behind an update of the trainable that it is.
  virtual void assign(View destination, View source) = 0;
  /// For the probes [first, first + count) of the table, which are of one direction: destination[i] =
  /// perturbed() of mezzo/core/noise.h over `offset` + noise.value, rounded to the element type; the noise is
  /// made once for all. destination [rows, cols] for each of `count`.
  virtual void perturb(const ProbeTable& table, std::int64_t first, std::int64_t count,
                       const DenseNoise& noise, float offset, View destination) = 0;
  /// destination[i, j] = scale * z, z the normal of element i * cols + j of tensor 0 under `seed`
  /// (mezzo/core/noise.h), rounded to the element type: random weights. One matrix, shared.
  virtual void fill_normal(View destination, std::uint64_t seed, float scale) = 0;
  /// Device to host, converted to fp32, dense [P or 1][rows, cols]. Waits.
  virtual void read(std::span<float> destination, View source, std::int64_t probes) = 0;
  /// The same of one row of i32 that is dense over all probes.
  virtual void read(std::span<std::int32_t> destination, View source, std::int64_t probes) = 0;
  virtual void upload(const PackedBatch& batch, DeviceBatch& destination) = 0;  ///< grows storage as needed
  virtual void upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) = 0;
  virtual void synchronize() = 0;
  /// The cudaStream_t that operations are enqueued on; null where there is none.
  virtual void* native_stream() const { return nullptr; }

  // ---- the forward
  /// h[p, t] = words[tokens[p, t]] (+ places[positions[t] + position_offset]).
  virtual void embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
                     std::int64_t position_offset, View h) = 0;
  /// h_out = h_in + sum of deltas in order (0 to 2, each shared or per-probe); x = norm(h_out). h_out may be
  /// h_in; an h_out without data is not stored; with one that is, x may be the last delta. x's dtype is the
  /// activations'. h_in may be an activation, and x, where there are neither deltas nor an h_out.
  virtual void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                             const Norm& norm, View x) = 0;
  /// Parts [first_part, first_part + y.size()) of `product`, each into its own y [rows, part.rows], tails
  /// included; or one y for all parts with a gated or plain `epilogue` (y.size() == 1).
  virtual void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
                       std::span<const View> y, Epilogue epilogue) = 0;
  /// Rotates q or k [rows, heads * head_dim] in place; row i is at position positions[row_index[i]], or
  /// positions[i] where row_index is empty.
  virtual void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
                      std::int64_t head_dim, View x) = 0;
  /// Causal attention within each sequence, over the shape's window of keys. k, v [T, kv_heads * head_dim]; q
  /// and out [T, heads * head_dim], or [R, ...] for the query rows `query_rows` alone (ascending; empty:
  /// all). With a rope, as if rotate() had been over q and k; they may be left rotated.
  virtual void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                         const Rope* rope, View q, View k, View v, View query_rows, View out) = 0;
  /// out[i] = x[rows[i]] for each probe; the rows may be each probe's own.
  virtual void gather(const ProbeTable& table, View x, View rows, View out) = 0;

  // ---- generation
  /// From here on, what a product gives for the rows [offsets[i], offsets[i + 1]) of an activation depends
  /// neither on its other rows nor on where these lie in it; in an activation of any other number of rows
  /// each row stands alone. Empty: no longer. A backend whose products never depend on that need not know.
  virtual void keep_apart(std::span<const std::int32_t> offsets) { static_cast<void>(offsets); }
  /// to.k[cache_rows[i]] = k[i], to.v[cache_rows[i]] = v[i]: the tokens of a batch of prompts. Of what is
  /// shared a copy each where `to` is a probe's own.
  virtual void store(const ProbeTable& table, const DeviceBatch& batch, View k, View v, const KeyValues& to);
  /// One step of decoding. Row i's key and value go to row cache_rows[i] of slot i (rotated, with a rope);
  /// its query sees the prompt's rows and its slot's up to that one, the window's last ones of these. q and
  /// out [T, heads * head_dim], k, v [T, kv_heads * head_dim], each probe's own; q and k may be left rotated.
  /// Of idle slots out is finite, if q is.
  virtual void decode_attention(const ProbeTable& table, const DeviceBatch& batch,
                                const AttentionShape& shape, const Rope* rope, View q, View k, View v,
                                const LayerCache& cache, View out);
  /// out[p, j] = the token that mezzo/core/sampling.h chooses of the logits of x[p, target_rows[j]], i32; -1
  /// where they have a NaN. x [R, H]; out [1, Q] for each probe.
  virtual void next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                           const Sampling& sampling, View out);

  /// The columns [heads][q, k, v][head_dim] of x as [q, k, v][heads][head_dim]; as many heads of keys and
  /// values as of queries. x and out [T, 3 heads * head_dim], not the same memory. A backend without it
  /// refuses: DeviceError.
  virtual void split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out);

  // ---- operations of some families. A backend without them refuses: DeviceError.
  /// x = norm of each head's columns, in place. x [T, heads * head_dim].
  virtual void norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x);
  /// h *= factor, in place.
  virtual void scale(const ProbeTable& table, float factor, View h);
  /// x = cap tanh(x / cap), in place.
  virtual void soft_cap(const ProbeTable& table, float cap, View x);
  /// y = activation(gate) * up for the rows gate | up of one module. gate_up [T, 2 I] may be overwritten; y
  /// [T, I].
  virtual void gate(const ProbeTable& table, Activation activation, View gate_up, View y);

  // ---- mixtures of experts (mixture.h). A backend without them refuses: DeviceError.
  /// Fills `routing`, shared or not as it is, from a router's logits [T, experts] fp32.
  virtual void route(const ProbeTable& table, View logits, const Routing& routing);
  /// out[i] = x[routing.rows[i]]: every row to its places. x [T, .], out [T * chosen, .].
  virtual void dispatch(const ProbeTable& table, const Routing& routing, View x, View out);
  /// As product() with one y for all parts. Rows of x and y are places: those of expert e go through
  /// experts[e]. The experts are of one shape.
  virtual void expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                              const Routing& routing, View x, View y, Epilogue epilogue);
  /// dispatch() and expert_product() in one: x [T, .]. Where the device gathers_rows().
  virtual void dispatch_product(const ProbeTable& table, std::span<const Product* const> experts,
                                const Routing& routing, View x, View y, Epilogue epilogue);
  /// out[t] = sum over j of routing.weights[t, j] * x[routing.places[t, j]], in ascending order of j.
  virtual void combine(const ProbeTable& table, const Routing& routing, View x, View out);

  /// out[p, j] = log softmax(cap(head x[p, target_rows[j]]))[target_tokens[p, j]], fp32, with the head's
  /// score_cap. x [R, H]; out [1, Q]
  /// for each probe. The logits are never kept whole where they would not fit.
  virtual void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                     View out) = 0;

  /// Enqueues the operations that `enqueue` asks for. `key` tells apart all that they depend on but for the
  /// contents of device memory: a backend may do again what it did for an equal key instead of calling
  /// `enqueue` once more. prepare() forgets keys.
  virtual void repeat(std::span<const std::uint64_t> key, const std::function<void()>& enqueue) = 0;

  // ---- the update
  /// One step of mezzo/core/update.h on the trainables and on what update_state() says that `state` keeps.
  virtual void update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) = 0;
  /// The in-run hash of mezzo/core/update.h over all trainables. Waits.
  virtual std::uint64_t hash(const Trainables& trainables) = 0;
};

}  // namespace mezzo
