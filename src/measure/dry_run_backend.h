#pragma once
#include <algorithm>

#include "backend_over.h"

namespace mezzo {

/// Has a device's sizes and does nothing: views have no data, every number read is zero. What a run asks of a
/// backend can be counted with it before there is a device.
class DryRunBackend : public BackendOver {
 public:
  using BackendOver::BackendOver;

  std::string device() const override { return "none"; }
  std::map<std::string, std::string> fingerprint() const override { return {}; }
  void keep(const std::map<std::string, std::string>&) override {}
  std::size_t memory_available() const override { return 0; }
  void choose(const Workload& workload) override { check_served(*this, workload); }
  void prepare(const Workload& workload) override { check_served(*this, workload); }

  Buffer allocate(std::size_t bytes) override { return Buffer(nullptr, bytes, nullptr); }
  void load(View, DType, const void*, bool) override {}
  void assign(View, View) override {}
  void fill_normal(View, std::uint64_t, float) override {}
  void perturb(const ProbeTable&, std::int64_t, std::int64_t, const DenseNoise&, float, View) override {}
  void read(std::span<float> destination, View, std::int64_t) override {
    std::ranges::fill(destination, 0.0f);
  }
  void read(std::span<std::int32_t> destination, View, std::int64_t) override {
    std::ranges::fill(destination, 0);
  }
  void upload(const PackedBatch& batch, DeviceBatch& destination) override;
  void upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) override {
    destination.probes.assign(probes.begin(), probes.end());
    destination.noise = noise;
  }
  void synchronize() override {}
  void repeat(std::span<const std::uint64_t>, const std::function<void()>& enqueue) override { enqueue(); }

  void embed(const ProbeTable&, const DeviceBatch&, View, View, std::int64_t, View) override {}
  void residual_norm(const ProbeTable&, View, std::span<const View>, View, const Norm&, View) override {}
  void product(const ProbeTable&, const Product&, std::size_t, View, std::span<const View>,
               Epilogue) override {}
  void rotate(const ProbeTable&, const DeviceBatch&, const Rope&, View, std::int64_t, View) override {}
  void attention(const ProbeTable&, const DeviceBatch&, const AttentionShape&, const Rope*, View, View, View,
                 View, View) override {}
  void gather(const ProbeTable&, View, View, View) override {}
  void split_heads(const ProbeTable&, const AttentionShape&, View, View) override {}
  void norm_heads(const ProbeTable&, const Norm&, std::int64_t, View) override {}
  void scale(const ProbeTable&, float, View) override {}
  void soft_cap(const ProbeTable&, float, View) override {}
  void gate(const ProbeTable&, Activation, View, View) override {}
  void route(const ProbeTable&, View, const Routing&) override {}
  void dispatch(const ProbeTable&, const Routing&, View, View) override {}
  void expert_product(const ProbeTable&, std::span<const Product* const>, const Routing&, View, View,
                      Epilogue) override {}
  void dispatch_product(const ProbeTable&, std::span<const Product* const>, const Routing&, View, View,
                        Epilogue) override {}
  void combine(const ProbeTable&, const Routing&, View, View) override {}
  void score(const ProbeTable&, const DeviceBatch&, const Product&, View, View) override {}
  void store(const ProbeTable&, const DeviceBatch&, View, View, const KeyValues&) override {}
  void decode_attention(const ProbeTable&, const DeviceBatch&, const AttentionShape&, const Rope*, View, View,
                        View, const LayerCache&, View) override {}
  void next_tokens(const ProbeTable&, const DeviceBatch&, const Product&, View, const Sampling&,
                   View) override {}

  void update(Trainables&, Trainables&, const UpdateStep&, NoiseKind) override {}
  std::uint64_t hash(const Trainables&) override { return 0; }
};

}  // namespace mezzo
