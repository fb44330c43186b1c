// What forwards ask of the cuda backend's products, without a card: the decoder over a backend that does
// nothing, with addresses as a card's arena has them.
#include <gtest/gtest.h>

#include <set>

#include "cuda_plan.h"
#include "dry_run_backend.h"
#include "mezzo/measure/benchmark.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/family.h"
#include "mezzo/model/lora.h"

namespace mezzo {
namespace {

class AskingBackend final : public DryRunBackend {
 public:
  explicit AskingBackend(const CudaPlan& plan) : DryRunBackend(plan), plan_(plan) {}

  void prepare(const Workload& workload) override {
    slot_rows_ = 2 * workload.largest.tokens;
    for (const PlannedProduct& planned : workload.products) {
      for (const GemmShape& shape : plan_.shapes_of(planned, slot_rows_)) planned_.insert(shape);
    }
  }
  Buffer allocate(std::size_t bytes) override {
    void* const at = reinterpret_cast<void*>(next_);  // never read
    next_ += (bytes / 256 + 1) * 256;
    return Buffer(at, bytes, [](void*, std::size_t) {});
  }
  void product(const ProbeTable&, const Product& product, std::size_t first_part, View x,
               std::span<const View> y, Epilogue epilogue) override {
    const std::vector<ProductOutput> outputs = outputs_of(product, first_part, y, epilogue.gated);
    const std::size_t past = outputs.back().first + outputs.back().count;
    const ProductRange range = range_of(product, first_part, past - first_part);
    const bool whole = plan_.whole_output(product, range, x, outputs, slot_rows_).has_value();
    const Way way = plan_.way_of(product, range, epilogue, whole);
    const GemmShape shape = plan_.shape_of(way, product, range, epilogue, slot_rows_);
    EXPECT_TRUE(way == Way::fused || planned_.contains(shape)) << product.name << " from part " << first_part;
    EXPECT_LE(shape.k, std::min(x.row_stride, product.weight.codes.row_stride)) << product.name;
    ways.insert(way);
  }
  void score(const ProbeTable&, const DeviceBatch&, const Product& head, View, View) override {
    if (plan_.runs_tiles()) return;
    const ProductRange all = range_of(head, 0, head.parts.size());
    EXPECT_TRUE(planned_.contains(plan_.shape_of(Way::plain, head, all, {}, slot_rows_)));
  }

  std::set<Way> ways;

 private:
  const CudaPlan& plan_;
  std::int64_t slot_rows_ = 0;
  std::set<GemmShape> planned_;
  std::uintptr_t next_ = std::uintptr_t{1} << 44;
};

/// `sequences` of `tokens` tokens, of which all rows are read or the last ones.
PackedBatch batch_of(std::int32_t sequences, std::int32_t tokens, bool all_read) {
  PackedBatch batch;
  batch.offsets.push_back(0);
  for (std::int32_t s = 0; s < sequences; ++s) {
    for (std::int32_t t = 0; t < tokens; ++t) {
      if (all_read || t + 1 == tokens) batch.loss_rows.push_back(s * tokens + t);
      batch.tokens.push_back(1);
      batch.positions.push_back(t);
    }
    batch.offsets.push_back((s + 1) * tokens);
  }
  for (std::size_t r = 0; r < batch.loss_rows.size(); ++r) {
    batch.target_rows.push_back(static_cast<std::int32_t>(r));
    batch.target_tokens.push_back(1);
  }
  return batch;
}

/// The ways that a forward's products go, alone and in a group.
std::set<Way> ways_of(const CudaPlan& plan, const Description& description, const AdapterConfig* adapter,
                      const PackedBatch& packed) {
  constexpr std::uint32_t most = 40;
  AskingBackend backend(plan);
  Trainables trainables;
  Perturbations perturbations;
  if (adapter != nullptr) {
    const std::vector<TrainableSpec> specs = lora_trainables(description, *adapter);
    trainables = list_trainables(specs);
    trainables.values = backend.allocate(static_cast<std::size_t>(trainables.count()) * sizeof(float));
    perturbations = lora_perturbations(description, *adapter, trainables);
  }
  Decoder decoder(backend, description, perturbations);
  decoder.randomize(1, 0.1f);
  DeviceBatch batch;
  backend.upload(packed, batch);
  decoder.reserve(batch.shape, most);
  decoder.begin(batch);
  for (const std::uint32_t count : {1u, most}) {
    std::vector<Probe> probes;
    for (std::uint32_t p = 0; p < count; ++p)
      probes.push_back({.seed = p / 2, .direction = p / 2, .epsilon = 0.1f});
    ProbeTable table;
    backend.upload(probes, NoiseKind::gaussian, table);
    const Buffer room = backend.allocate(std::size_t{1} << 20);
    View out = dense(room.data(), DType::f32, 1, batch.shape.targets);
    out.probe_stride = batch.shape.targets;
    decoder.evaluate(table, out);
  }
  return backend.ways;
}

std::vector<AdapterConfig> adapters_for(const Description& description) {
  AdapterConfig query_value, all, last_layer, gate, up;
  query_value.target_modules = description.names.query_value;
  all.all_linear = true;
  last_layer.all_linear = true;
  last_layer.r = 3;
  last_layer.layers_to_transform = {{description.layers - 1}};
  const std::vector<std::string>& mlp_input =
      description.mixture ? description.mixture->input : description.names.mlp_input;
  gate.target_modules = {mlp_input.front()};
  up.target_modules = {mlp_input.back()};
  up.r = 16;
  return {query_value, all, last_layer, gate, up};
}

TEST(CudaShapes, WhatAForwardAsksForIsPlanned) {
  std::vector<Description> descriptions;
  for (const char* name : {"llama", "llama_grouped", "llama_tied", "gpt2", "gptj"})
    descriptions.push_back(read_description(MEZZO_TEST_DATA "/models/" + std::string(name)));
  for (const std::string& name : benchmark_models()) descriptions.push_back(benchmark_model(name, 2));
  for (const Description& description : descriptions) {
    for (const auto& [fp32, tiles] : {std::pair{false, true}, {false, false}, {true, false}}) {
      const CudaPlan plan(fp32, tiles);
      for (const bool all_read : {false, true}) {
        const PackedBatch batch = batch_of(3, 7, all_read);
        SCOPED_TRACE(fmt::format("{} of width {}, fp32 {}, tiles {}, all read {}", description.family,
                                 description.hidden, fp32, tiles, all_read));
        ways_of(plan, description, nullptr, batch);
        for (const AdapterConfig& adapter : adapters_for(description)) {
          SCOPED_TRACE(fmt::format("targets {}, r {}", fmt::join(adapter.target_modules, " "), adapter.r));
          ways_of(plan, description, &adapter, batch);
        }
      }
    }
  }
}

TEST(CudaShapes, LlamaGoesStraightButWhereProbesShareAnInput) {
  Description description = benchmark_model("llama7b", 2);
  AdapterConfig adapter;
  adapter.target_modules = description.names.query_value;
  const PackedBatch batch = batch_of(1, 128, true);
  for (const bool tiles : {false, true}) {
    const CudaPlan plan(false, tiles);
    const Way gated = tiles ? Way::fused : Way::gated;
    AdapterConfig own = adapter;
    EXPECT_EQ(ways_of(plan, description, nullptr, batch), (std::set{Way::direct, gated}));
    EXPECT_EQ(ways_of(plan, description, &own, batch), (std::set{Way::direct, gated, Way::plain}));
    own.target_modules = {"o_proj"};
    own.layers_to_transform = {{1}};
    EXPECT_EQ(ways_of(plan, description, &own, batch), (std::set{Way::direct, gated, Way::plain}));
  }
}

}  // namespace
}  // namespace mezzo
