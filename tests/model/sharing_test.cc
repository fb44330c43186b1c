// What a mixture of experts, and OPT-350m, share between probes, on every backend of a CPU build. The golden
// models hold their numbers (decoder_test.cc).
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "golden.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

// Which part of a model comes first for a probe decides what of it is shared: places, what goes to the
// experts, what comes back.
class Sharing : public ::testing::TestWithParam<const char*> {};

TEST_P(Sharing, OfWhatNoProbeChangesChangesNothing) {
  using Targets = std::vector<std::string>;
  const std::string model = GetParam();
  const std::vector<Targets> all =
      model == "mixtral"
          ? std::vector<Targets>{{"gate"}, {"w1"}, {"w2"}, {"experts.3.w3"}, {"gate", "w2"}, {"v_proj"}}
          : std::vector<Targets>{{"project_in"}, {"v_proj"}, {"out_proj"}, {"fc1"}, {"fc2"}, {"project_out"}};
  for (const Targets& targets : all) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(targets, " ")));
    std::vector<std::vector<float>> results;
    for (const DeviceKind device : {DeviceKind::reference, DeviceKind::cpu}) {
      const auto backend = make_backend({.device = device, .threads = 2});
      const ModelFiles files(model_directory(model));
      const AdapterConfig config{.r = 2, .target_modules = targets};
      const auto specs = lora_trainables(files.description, config);
      std::vector<float> start = initial_values(specs, 1);
      for (std::size_t i = 0; i < start.size(); ++i) start[i] += 0.01f * static_cast<float>(i % 7);
      const Trainables trainables = make_trainables(*backend, specs, start);
      Decoder decoder(*backend, files.description, lora_perturbations(files.description, config, trainables));
      decoder.load(files, {});
      const Safetensors expected = Safetensors::open(files.directory + "/expected.safetensors");
      DeviceBatch batch;
      backend->upload(golden_batch(expected, false, [](std::int32_t row) { return row % 3 == 1; }), batch);
      decoder.reserve(batch.shape, 3);
      decoder.begin(batch);
      const std::vector<Probe> probes{{7, 0, 1e-2f}, {7, 0, -1e-2f}, {9, 1, 5e-2f}};
      const auto evaluate = [&](std::span<const Probe> group) {
        ProbeTable table;
        backend->upload(group, NoiseKind::gaussian, table);
        std::vector<float> values(group.size() * static_cast<std::size_t>(batch.shape.targets));
        View out = dense(values.data(), DType::f32, 1, batch.shape.targets);
        out.probe_stride = batch.shape.targets;
        decoder.evaluate(table, out);
        return values;
      };
      results.push_back(evaluate(probes));
      EXPECT_EQ(decoder.arena_high_water(), decoder.activation_bytes(batch.shape, 3));
      std::vector<float> one_by_one;
      for (const Probe& probe : probes) {
        const std::vector<float> one = evaluate({&probe, 1});
        one_by_one.insert(one_by_one.end(), one.begin(), one.end());
      }
      EXPECT_EQ(one_by_one, results.back());
    }
    double scale = 0.0;
    for (const float value : results[0]) scale = std::max(scale, std::abs(static_cast<double>(value)));
    for (std::size_t i = 0; i < results[0].size(); ++i)
      ASSERT_NEAR(results[1][i], results[0][i], 2e-5 * scale) << "element " << i;
    const auto targets_of_one = static_cast<std::ptrdiff_t>(results[0].size() / 3);
    EXPECT_FALSE(std::equal(results[0].begin(), results[0].begin() + targets_of_one,
                            results[0].begin() + targets_of_one));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Sharing, ::testing::Values("mixtral", "opt_350m"),
                         [](const auto& which) { return std::string(which.param); });

}  // namespace
}  // namespace mezzo
