#pragma once
// What the reference and cpu backends share: host memory, fp32 throughout, operations that are done on
// return.
#include <array>
#include <utility>

#include "kernels/rows.h"
#include "mezzo/backend/backend.h"

namespace mezzo {

/// What products of all backends serve.
inline bool is_tail_or_none(const Perturbation& perturbation) {
  return std::holds_alternative<std::monostate>(perturbation) ||
         std::holds_alternative<LowRankTail>(perturbation);
}

class HostBackend : public Backend {
 public:
  DType activation_dtype() const override { return DType::f32; }
  DType residual_dtype() const override { return DType::f32; }
  std::size_t memory_available() const override;

  Buffer allocate(std::size_t bytes) override;
  bool serves(const Perturbation& perturbation) const override { return is_tail_or_none(perturbation); }
  bool serves(const Weight& weight) const override {
    return weight.type == WeightType::f32 && weight.residence == Residence::device;
  }
  std::int64_t input_stride(const Product& product) const override { return product.in(); }
  /// Tails are added beside W x: they need no room.
  Weight place_weight(std::int64_t out, std::int64_t in, std::int64_t) const override {
    return {.codes = dense(nullptr, DType::f32, out, in)};
  }
  /// Host backends choose nothing.
  void choose(const Workload& workload) override { check_served(*this, workload); }
  void keep(const std::map<std::string, std::string>&) override {}
  void load(View destination, DType source_dtype, const void* source, bool transposed) override;
  void assign(View destination, View source) override;
  void read(std::span<float> destination, View source, std::int64_t probes) override;
  void read(std::span<std::int32_t> destination, View source, std::int64_t probes) override;
  void store(const ProbeTable& table, const DeviceBatch& batch, View k, View v, const KeyValues& to) override;
  void upload(const PackedBatch& batch, DeviceBatch& destination) override;
  /// Host code reads ProbeTable::probes: there is no device copy.
  void upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) override;
  void synchronize() override {}
  void repeat(std::span<const std::uint64_t>, const std::function<void()>& enqueue) override { enqueue(); }
};

void check_perturb(const ProbeTable& table, std::int64_t first, std::int64_t count, const DenseNoise& noise,
                   const View& destination);
void check_split_heads(const AttentionShape& shape, const View& x, const View& out);
/// Backend::split_heads() of one row.
void split_row(const AttentionShape& shape, const float* x, float* out);

/// An index row of a batch: its view in the backend's memory and the values that go there.
struct BatchRow {
  View* view;
  const std::vector<std::int32_t>* values;
  std::int64_t probes = 0;  ///< whose own the values are; 0: shared

  /// The view of the values at `data`.
  View at(void* data) const;
};
/// Sets shape and probes of `destination`. DeviceError where the values are not a row for each probe.
std::array<BatchRow, 11> rows_of(const PackedBatch& batch, DeviceBatch& destination);

/// The rows of probe p.
inline Rows<float> rows_of(const View& view, std::int64_t p) {
  return {view.as<float>() + p * view.probe_stride, view.row_stride};
}

/// The indices of probe p.
inline std::int32_t* integers_of(const View& view, std::int64_t p) {
  return view.as<std::int32_t>() + p * view.probe_stride;
}

/// How often an operation has to run for `output`: once if it is shared, else once a probe.
inline std::int64_t copies_of(const View& output, const ProbeTable& table) {
  return output.shared() ? 1 : table.count();
}

/// One output of a product: the consecutive parts that it holds, [first, first + count) of Product::parts.
struct ProductOutput {
  View y;
  std::size_t first = 0;
  std::size_t count = 0;
};

/// Which parts each y of Backend::product holds. A gated output stands for its two parts.
std::vector<ProductOutput> outputs_of(const Product& product, std::size_t first_part, std::span<const View> y,
                                      bool gated);

// ---- checks of what an operation was given: DeviceError naming the operation, the operand and both shapes.

/// `view` is [rows, cols] of fp32.
void check_shape(const char* operation, const char* operand, const View& view, std::int64_t rows,
                 std::int64_t cols);
/// An output that all probes share must not depend on an input that they do not.
void check_sharing(const char* operation, const View& output, const View& input);
/// What embed was given: h's rows are tokens; h is each probe's own where the tokens are.
void check_embed(const ProbeTable& table, const DeviceBatch& batch, const View& words, const View& places,
                 std::int64_t position_offset, const View& h);
/// What score was given: x's rows are loss rows; out is each probe's own where x or the target tokens are.
void check_score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                 const View& out);
/// What residual_norm was given: every shape h_in's; h_out, where stored, shared exactly if x is.
void check_residual_norm(const View& h_in, std::span<const View> deltas, const View& h_out, const View& x);
void check_gate(const View& gate_up, const View& y);
void check_norm_heads(const Norm& norm, std::int64_t head_dim, const View& x);
/// What attention was given: a row of q and out for each query row (each token where there are none).
void check_attention(const DeviceBatch& batch, const AttentionShape& shape, const View& q, const View& k,
                     const View& v, const View& query_rows, const View& out);
/// Every element of `indices` (one row of i32, or one for each of `probes` probes) is in [0, limit). probes:
/// 0 where the operation takes none but shared indices.
void check_indices(const char* operation, const char* operand, const View& indices, std::int64_t limit,
                   std::int64_t probes = 0);
/// What store was given: a row of k and v for each token, and rows of the cache for them.
void check_store(const DeviceBatch& batch, const View& k, const View& v, const KeyValues& to);
/// What decode_attention was given: a row a slot of everything, each probe's own, and a cache to go with it.
void check_decode_attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                            const View& q, const View& k, const View& v, const LayerCache& cache,
                            const View& out);
/// What next_tokens was given: x's rows are loss rows; out is each probe's own where x is.
void check_next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, const View& x,
                       const View& out);
/// The key of the draws of target j of probe p, and which new token it is.
std::uint64_t draw_key_of(const DeviceBatch& batch, std::int64_t p, std::int64_t j);
std::uint32_t draw_place_of(const DeviceBatch& batch, std::int64_t p, std::int64_t j);

/// Two pieces of consecutive tokens that a row of decoding sees, in order: the prompt's and its own.
struct SeenRows {
  std::int64_t prompt_begin = 0, prompt_length = 0;  ///< of LayerCache::prompts
  std::int64_t own_begin = 0, own_length = 0;        ///< of LayerCache::own
  std::int64_t length() const { return prompt_length + own_length; }
};
/// Of row t of probe p; of an idle slot no rows.
SeenRows seen_rows(const DeviceBatch& batch, const LayerCache& cache, std::int64_t p, std::int64_t t);

/// A batch with tokens for each probe is of as many probes as the table.
void check_probes(const char* operation, const DeviceBatch& batch, const ProbeTable& table);

}  // namespace mezzo
