#pragma once
#include <array>
#include <functional>
#include <map>
#include <string>

#include "backend_over.h"
#include "mezzo/measure/profile.h"
#include "mezzo/model/layers.h"

namespace mezzo {

/// Hands every operation on to another backend, and counts it or times it as it is told. An operation is
/// timed by itself: the device is idle before it and is waited for behind it.
class ProfiledBackend final : public BackendOver {
 public:
  enum class Watch { nothing, counts, time };

  /// `inner` must outlive it. Products are told apart by their places in the decoder that `description`
  /// describes.
  ProfiledBackend(Backend& inner, const Description& description);

  void watch(Watch watch) { watch_ = watch; }
  const WorkTallies& tallies() const { return tallies_; }
  void clear() { tallies_ = {}; }

  std::string device() const override { return inner_.device(); }
  std::map<std::string, std::string> fingerprint() const override { return inner_.fingerprint(); }
  void keep(const std::map<std::string, std::string>& fingerprint) override { inner_.keep(fingerprint); }
  std::size_t memory_available() const override { return inner_.memory_available(); }
  void choose(const Workload& workload) override { inner_.choose(workload); }
  void prepare(const Workload& workload) override { inner_.prepare(workload); }

  Buffer allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void load(View destination, DType source_dtype, const void* source, bool transposed) override {
    inner_.load(destination, source_dtype, source, transposed);
  }
  void assign(View destination, View source) override { inner_.assign(destination, source); }
  void fill_normal(View destination, std::uint64_t seed, float scale) override {
    inner_.fill_normal(destination, seed, scale);
  }
  void perturb(const ProbeTable& table, std::int64_t first, std::int64_t count, const DenseNoise& noise,
               float offset, View destination) override;
  void read(std::span<float> destination, View source, std::int64_t probes) override;
  void read(std::span<std::int32_t> destination, View source, std::int64_t probes) override;
  void upload(const PackedBatch& batch, DeviceBatch& destination) override;
  void upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) override;
  void synchronize() override { inner_.synchronize(); }
  /// Operation by operation where each is to be watched.
  void repeat(std::span<const std::uint64_t> key, const std::function<void()>& enqueue) override {
    if (watch_ != Watch::nothing) return enqueue();
    inner_.repeat(key, enqueue);
  }

  void embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
             std::int64_t position_offset, View h) override;
  void residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas, View h_out,
                     const Norm& norm, View x) override;
  void product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override;
  void rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope, View row_index,
              std::int64_t head_dim, View x) override;
  void attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                 const Rope* rope, View q, View k, View v, View query_rows, View out) override;
  void gather(const ProbeTable& table, View x, View rows, View out) override;
  void keep_apart(std::span<const std::int32_t> offsets) override { inner_.keep_apart(offsets); }
  void store(const ProbeTable& table, const DeviceBatch& batch, View k, View v, const KeyValues& to) override;
  void decode_attention(const ProbeTable& table, const DeviceBatch& batch, const AttentionShape& shape,
                        const Rope* rope, View q, View k, View v, const LayerCache& cache, View out) override;
  void next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                   const Sampling& sampling, View out) override;
  void split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) override;
  void norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) override;
  void scale(const ProbeTable& table, float factor, View h) override;
  void soft_cap(const ProbeTable& table, float cap, View x) override;
  void gate(const ProbeTable& table, Activation activation, View gate_up, View y) override;
  void route(const ProbeTable& table, View logits, const Routing& routing) override;
  void dispatch(const ProbeTable& table, const Routing& routing, View x, View out) override;
  void expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                      const Routing& routing, View x, View y, Epilogue epilogue) override;
  void dispatch_product(const ProbeTable& table, std::span<const Product* const> experts,
                        const Routing& routing, View x, View y, Epilogue epilogue) override;
  void combine(const ProbeTable& table, const Routing& routing, View x, View out) override;
  void score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
             View out) override;

  void update(Trainables& trainables, Trainables& state, const UpdateStep& step, NoiseKind noise) override;
  std::uint64_t hash(const Trainables& trainables) override;

 private:
  /// What causal attention over a batch looks at.
  struct Pairs {
    double all = 0.0;   ///< (query, key) of every row
    double read = 0.0;  ///< of the rows that a loss reads
  };

  Work work_of(const Product& product) const;
  WorkTally& tally(Work work) { return tallies_[static_cast<std::size_t>(work)]; }
  void run(Work work, const std::function<void()>& operation);
  void count_bytes(Work work, const ProbeTable& table, std::span<const View> views);
  /// Counts parts [first, first + count) over `rows` rows of x.
  void count_product(const ProbeTable& table, const Product& product, std::size_t first, std::size_t count,
                     const View& x, double rows);

  /// Counts a product of experts over `places` rows in all.
  void count_experts(const ProbeTable& table, std::span<const Product* const> experts, const View& x,
                     std::int64_t places);

  Backend& inner_;
  std::map<std::string, Work> works_;  ///< of each product, by its name
  Watch watch_ = Watch::nothing;
  WorkTallies tallies_ = {};
  std::map<const DeviceBatch*, Pairs> pairs_;  ///< of what was last uploaded there
};

}  // namespace mezzo
