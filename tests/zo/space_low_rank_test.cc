// The space of whole weights along noise of low rank.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"
#include "mezzo/core/update.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/safetensors.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/family.h"
#include "mezzo/model/model_files.h"
#include "mezzo/zo/parameter_space.h"
#include "scratch.h"

namespace mezzo {
namespace {

const std::string record = "record";

std::string model(const std::string& name) { return MEZZO_TEST_DATA "/models/" + name; }

Config config_of(std::int64_t rank, std::vector<std::string> targets = {}) {
  Config config;
  config.zo.space = SpaceType::low_rank;
  config.zo.rank = rank;
  config.zo.target_modules.names = std::move(targets);
  return config;
}

TEST(LowRankSpace, HasTheWeightsOfLinearLayers) {
  const Description description = read_description(model("llama"));
  const auto space = configure_space(config_of(3), description, "").space;
  EXPECT_EQ(space->kind(), "low_rank");
  const std::vector<LinearModule> modules = linear_modules(description);
  ASSERT_EQ(space->trainables().size(), modules.size());
  EXPECT_TRUE(std::ranges::is_sorted(space->trainables(), {}, &TrainableSpec::name));
  for (const LinearModule& module : modules) {
    const TrainableSpec expected{module.name + ".weight", module.out, module.in, 3};
    EXPECT_EQ(std::ranges::count(space->trainables(), expected), 1) << module.name;
  }
  Config resolved = config_of(3);
  space->resolve(resolved);
  EXPECT_TRUE(resolved.zo.target_modules.all_linear);

  const auto some = configure_space(config_of(1, {"v_proj"}), description, "").space;
  EXPECT_EQ(some->trainables().size(), static_cast<std::size_t>(description.layers));
  EXPECT_THROW(configure_space(config_of(1, {"w_proj"}), description, ""), UsageError);
  EXPECT_THROW(configure_space(config_of(2'000'000'000), description, ""), UsageError);
  EXPECT_FALSE(space->has_adapter());
  EXPECT_THROW(static_cast<void>(space->read_adapter("somewhere")), UsageError);
}

TEST(LowRankSpace, ARecordMakesTheSameOneAgain) {
  const Description description = read_description(model("gpt2"));
  for (const Config& config : {config_of(1), config_of(4, {"c_attn", "c_fc"})}) {
    const auto space = configure_space(config, description, "").space;
    std::vector<TrainableSpec> recorded = space->trainables();
    for (TrainableSpec& spec : recorded) spec.noise_rank = 0;  // a record has names and sizes alone
    const nlohmann::json constants = space->constants();
    const auto again = recorded_space("low_rank", JsonCursor(constants, record), recorded);
    EXPECT_EQ(again->constants(), space->constants());
    EXPECT_EQ(again->trainables(), space->trainables());
    again->check_model(description, "here");
    EXPECT_THROW(again->check_model(read_description(model("llama")), "there"), Error);
  }
  const std::vector<TrainableSpec> weights = {{"a.weight", 3, 5}};
  const auto refused = [&](int rank) {
    const nlohmann::json constants = {{"rank", rank}, {"target_modules", "all-linear"}};
    try {
      static_cast<void>(recorded_space("low_rank", JsonCursor(constants, record), weights));
      return false;
    } catch (const InputError&) {
      return true;
    }
  };
  EXPECT_TRUE(refused(0));
  EXPECT_FALSE(refused(3));
  EXPECT_TRUE(refused(4));
}

/// GPT-2's files hold weights as [in, out], LLaMA's as [out, in]: what is read is what is written back.
TEST(LowRankSpace, BeginsWithTheModelsWeightsAndLeavesThemInIt) {
  for (const char* name : {"gpt2", "llama"}) {
    const ModelFiles files(model(name));
    const auto space = configure_space(config_of(1), files.description, "").space;
    std::vector<float> values = space->initial_values(1, model(name));
    ASSERT_EQ(static_cast<std::int64_t>(values.size()), element_count(space->trainables()));
    const TrainableSpec& first = space->trainables()[0];
    std::vector<float> stored(static_cast<std::size_t>(first.count()));
    to_float(files.weight(first.name), stored);
    const bool transposed = std::string(name) == "gpt2";
    EXPECT_EQ(values[1], stored[transposed ? static_cast<std::size_t>(first.rows) : 1u]);

    for (std::size_t i = 0; i < values.size(); ++i) values[i] += 1e-3f * static_cast<float>(i % 13);
    const test::ScratchFolder scratch;
    space->write_merged(files, values, DType::f32, scratch / "merged", false);
    EXPECT_EQ(space->initial_values(1, scratch / "merged"), values);
    const ModelFiles merged(scratch / "merged");
    for (const WeightSpec& weight : weight_specs(files.description)) {  // others are as they were
      const bool trained = std::ranges::any_of(
          space->trainables(), [&](const TrainableSpec& spec) { return spec.name == weight.name; });
      if (trained) continue;
      const TensorInfo& before = files.weight(weight.name);
      std::vector<float> old(static_cast<std::size_t>(before.elements())), now(old.size());
      to_float(before, old);
      to_float(merged.weight(weight.name), now);
      EXPECT_EQ(old, now) << weight.name;
    }
  }
}

// Every element of a module moves by 0.5 or, of the last one, by 2.
TEST(LowRankSpace, UpdatesAreTheNormsOfDifferences) {
  const ModelFiles files(model("gpt2"));
  const auto space = configure_space(config_of(1), files.description, "").space;
  const std::vector<float> start = space->initial_values(1, model("gpt2"));
  const std::vector<LinearModule> modules = linear_modules(files.description);
  std::vector<float> values;
  std::map<std::string, double> weights;  // sums of squares
  for (const TrainableSpec& spec : space->trainables()) {
    for (std::int64_t e = 0; e < spec.count(); ++e) {
      const float before = start[values.size()];
      weights[spec.name] += double{before} * double{before};
      values.push_back(before + (spec.name == modules.back().name + ".weight" ? 2.0f : 0.5f));
    }
  }
  const std::vector<UpdateSize> sizes = space->update_sizes(files, start, values);
  ASSERT_EQ(sizes.size(), modules.size());
  for (std::size_t m = 0; m < modules.size(); ++m) {
    EXPECT_EQ(sizes[m].module, modules[m].name);
    EXPECT_EQ(sizes[m].layer, modules[m].layer);
    const double step = m + 1 == modules.size() ? 2.0 : 0.5;
    const double expected = step * std::sqrt(static_cast<double>(modules[m].in * modules[m].out));
    EXPECT_NEAR(sizes[m].update, expected, 1e-6 * expected);  // the sum is rounded to fp32
    EXPECT_NEAR(sizes[m].weight, std::sqrt(weights.at(modules[m].name + ".weight")), 1e-12 * sizes[m].weight);
  }
  EXPECT_EQ(space->update_sizes(files, start, start).front().update, 0.0);
}

/// Log-probabilities of a few tokens at theta under a probe, on the reference backend.
std::vector<float> scores(const ModelFiles& files, const ParameterSpace& space, std::span<const float> values,
                          const Probe& probe) {
  const auto backend = make_backend({.device = DeviceKind::reference, .threads = 1});
  const Trainables trainables = make_trainables(*backend, space.trainables(), values);
  Decoder decoder(*backend, files.description, space.perturbations(files.description, trainables));
  decoder.load(files, {});
  PackedBatch batch;
  batch.offsets = {0, 5};
  for (std::int32_t i = 0; i < 5; ++i) {
    batch.tokens.push_back(3 + 2 * i);
    batch.positions.push_back(i);
  }
  batch.loss_rows = {2, 4};
  batch.target_rows = {0, 1};
  batch.target_tokens = {7, 11};
  DeviceBatch on_device;
  decoder.upload(batch, on_device);
  decoder.reserve(shape_of(batch), 1);
  decoder.begin(on_device);
  ProbeTable table;
  backend->upload({{probe}}, NoiseKind::gaussian, table);
  const Buffer memory = backend->allocate(2 * sizeof(float));
  View out = dense(memory.data(), DType::f32, 1, 2);
  out.probe_stride = 2;
  decoder.evaluate(table, out);
  std::vector<float> result(2);
  backend->read(result, out, 1);
  return result;
}

/// A probe's forward is that of a model whose weights were moved by eps z, z as an update takes it: through
/// all modules of a model, both signs. Tolerance: sums of some dozen terms in double, rounded to fp32 a dozen
/// times.
TEST(LowRankSpace, AProbeIsTheModelWithMovedWeights) {
  for (const char* name : {"gpt2", "llama", "mixtral"}) {
    const ModelFiles files(model(name));
    const auto space = configure_space(config_of(2), files.description, "").space;
    const std::vector<float> values = space->initial_values(1, model(name));
    const std::vector<float> base = scores(files, *space, values, {});
    for (const float epsilon : {0.01f, -0.01f}) {
      std::vector<float> moved = values;
      std::size_t at = 0;
      for (std::uint32_t id = 0; id < space->trainables().size(); ++id) {
        const TrainableSpec& spec = space->trainables()[id];
        for (std::int64_t e = 0; e < spec.count(); ++e) {
          moved[at++] += epsilon * tensor_noise_at(NoiseKind::gaussian, 9, TensorNoise(id, 2, spec.cols),
                                                   static_cast<std::uint64_t>(e));
        }
      }
      const std::vector<float> probed =
          scores(files, *space, values, {.seed = 9, .direction = 0, .epsilon = epsilon});
      const std::vector<float> expected = scores(files, *space, moved, {});
      for (std::size_t i = 0; i < probed.size(); ++i) {
        EXPECT_NEAR(probed[i], expected[i], 2e-5) << name;
        EXPECT_GT(std::abs(expected[i] - base[i]), 1e-4) << name;
      }
    }
  }
}

}  // namespace
}  // namespace mezzo
