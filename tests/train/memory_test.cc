// What a training step needs of memory is what the planner said, and does not grow with the number of
// directions.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "mezzo/model/family.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/probe_runner.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {
namespace {

/// A line of /proc/self/status, in bytes.
std::size_t status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoul(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

/// For what is neither weights nor activations nor scratch: the program's code, the heap of this test,
/// OpenBLAS's own buffers (some MiB a thread). The model is ten times as large, so that what is planned
/// decides.
constexpr std::size_t allowance = std::size_t{16} << 20;

TEST(Memory, PeakIsWeightsActivationsAndAnAllowance) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the address sanitizer's own memory would be counted";
#endif
  const Description description = describe({{"model_type", "llama"},
                                            {"architectures", {"LlamaForCausalLM"}},
                                            {"hidden_size", 512},
                                            {"intermediate_size", 1376},
                                            {"num_hidden_layers", 8},
                                            {"num_attention_heads", 8},
                                            {"vocab_size", 8192},
                                            {"max_position_embeddings", 256},
                                            {"tie_word_embeddings", false}},
                                           "config.json");
  const std::unique_ptr<Backend> backend = make_backend({.device = DeviceKind::cpu, .threads = 2});
  const std::size_t before = status_bytes("VmRSS");
  AdapterConfig config;
  config.target_modules = description.names.query_value;
  const std::vector<TrainableSpec> specs = lora_trainables(description, config);
  const Trainables trainables = make_trainables(*backend, specs, initial_values(specs, 1));
  Decoder decoder(*backend, description, lora_perturbations(description, config, trainables));
  decoder.randomize(1, 0.02f);

  PackedBatch batch;
  batch.offsets.push_back(0);
  for (int s = 0; s < 16; ++s) {
    for (int t = 0; t < 31; ++t) {
      batch.tokens.push_back((s * 31 + t * 7) % 8192);
      batch.positions.push_back(t);
    }
    batch.offsets.push_back(static_cast<std::int32_t>(batch.tokens.size()));
    batch.loss_rows.push_back(static_cast<std::int32_t>(batch.tokens.size()) - 1);
    batch.target_rows.push_back(s);
    batch.target_tokens.push_back(5);
  }
  const BatchShape shape = shape_of(batch);
  constexpr std::int64_t group = 8;
  ProbeRunner runner(*backend, decoder);
  runner.reserve(shape, group);
  const std::size_t planned =
      decoder.activation_bytes(shape, group) + backend->scratch_bytes(decoder.workload(shape, group));
  std::size_t peak[2];
  int run = 0;
  for (const std::int64_t directions : {4, 16}) {
    const std::vector<Probe> probes =
        make_estimator(EstimatorKind::two_sided, 1e-2)->probes(direction_seeds({.seed = 1}, 0, directions));
    runner.begin(batch);
    for (std::size_t first = 0; first < probes.size(); first += group) {
      runner.evaluate(std::span(probes).subspan(first, group), NoiseKind::gaussian);
    }
    peak[run++] = status_bytes("VmHWM");
  }
  std::size_t weights = 0;
  for (const WeightSpec& spec : weight_specs(description)) {
    std::size_t count = 1;
    for (const std::int64_t extent : spec.shape) count *= static_cast<std::size_t>(extent);
    weights += count * sizeof(float);
  }
  // From both sides: what is planned is used, and little else is.
  EXPECT_LE(peak[0] - before, weights + planned + allowance);
  EXPECT_GE(peak[0] - before + allowance, weights + planned);
  EXPECT_GT(weights + planned, 8 * allowance);
  EXPECT_LE(peak[1], peak[0] + (std::size_t{1} << 20)) << "memory grows with the number of directions";
  // The planner's number is the arena's: within 10% of its high-water mark.
  const auto high_water = static_cast<double>(decoder.arena_high_water());
  EXPECT_NEAR(static_cast<double>(decoder.activation_bytes(shape, group)), high_water, 0.1 * high_water);
  RecordProperty("peak_bytes", std::to_string(peak[0] - before));
  RecordProperty("planned_bytes", std::to_string(planned));
}

}  // namespace
}  // namespace mezzo
