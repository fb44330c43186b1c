// The spaces of a model's own tensors along noise of their elements.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"
#include "mezzo/core/noise.h"
#include "mezzo/io/convert.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/family.h"
#include "mezzo/model/model_files.h"
#include "mezzo/zo/parameter_space.h"
#include "scratch.h"

namespace mezzo {
namespace {

std::string model(const std::string& name) { return MEZZO_TEST_DATA "/models/" + name; }

Config config_of(SpaceType space, std::vector<std::string> targets = {}) {
  Config config;
  config.zo.space = space;
  config.zo.target_modules.names = std::move(targets);
  return config;
}

std::shared_ptr<const ParameterSpace> space_of(SpaceType type, const std::string& name,
                                               std::vector<std::string> targets = {}) {
  return configure_space(config_of(type, std::move(targets)), read_description(model(name)), "").space;
}

std::string refusal(SpaceType type, const std::string& name, std::vector<std::string> targets = {}) {
  try {
    static_cast<void>(space_of(type, name, std::move(targets)));
    return "";
  } catch (const UsageError& error) {
    return error.what();
  }
}

std::vector<std::string> names_of(const ParameterSpace& space) {
  std::vector<std::string> names;
  for (const TrainableSpec& spec : space.trainables()) names.push_back(spec.name);
  return names;
}

TEST(DenseSpace, HasEveryTensorOfTheModel) {
  for (const char* name : {"gpt2", "llama", "opt_350m"}) {
    const auto space = space_of(SpaceType::dense, name);
    EXPECT_EQ(space->kind(), "dense");
    std::vector<std::string> expected;
    for (const WeightSpec& tensor : weight_specs(read_description(model(name))))
      expected.push_back(tensor.name);
    std::ranges::sort(expected);
    EXPECT_EQ(names_of(*space), expected) << name;
  }
}

TEST(DenseSpace, VectorsAreNormsAndBiases) {
  const auto of_llama = space_of(SpaceType::vectors, "llama");
  EXPECT_EQ(of_llama->kind(), "vectors");
  for (const TrainableSpec& spec : of_llama->trainables()) {
    EXPECT_NE(spec.name.find("norm.weight"), std::string::npos) << spec.name;
    EXPECT_EQ(spec.rows, 1);
  }
  const Description gpt2 = read_description(model("gpt2"));
  EXPECT_EQ(space_of(SpaceType::vectors, "gpt2")->trainables().size(),
            static_cast<std::size_t>(gpt2.layers * (4 + 4) + 2));  // four biases, two norms of two
}

TEST(DenseSpace, TargetModulesChooseAsInPeft) {
  const Description gpt2 = read_description(model("gpt2"));
  const auto some = space_of(SpaceType::dense, "gpt2", {"c_attn", "wpe"});
  EXPECT_EQ(some->trainables().size(), static_cast<std::size_t>(2 * gpt2.layers + 1));
  Config all_linear = config_of(SpaceType::dense);
  all_linear.zo.target_modules.all_linear = true;
  const auto linear = configure_space(all_linear, gpt2, "").space;
  EXPECT_EQ(linear->trainables().size(), 2 * linear_modules(gpt2).size());  // weight and bias
  EXPECT_NE(refusal(SpaceType::dense, "gpt2", {"q_proj"}).find("\"q_proj\" matches no module"),
            std::string::npos);
  EXPECT_NE(refusal(SpaceType::vectors, "llama", {"q_proj"}).find("matches no module"), std::string::npos);
  EXPECT_NE(refusal(SpaceType::dense, "mixtral").find("a part of a mixture of experts"), std::string::npos);
  EXPECT_EQ(refusal(SpaceType::vectors, "mixtral"), "");
  Config resolved = config_of(SpaceType::dense);
  some->resolve(resolved);
  EXPECT_EQ(resolved.zo.target_modules.names, (std::vector<std::string>{"c_attn", "wpe"}));
}

TEST(DenseSpace, ARecordMakesTheSameOneAgain) {
  for (const SpaceType type : {SpaceType::dense, SpaceType::vectors}) {
    for (const std::vector<std::string>& targets : {std::vector<std::string>{}, {"c_attn", "ln_1"}}) {
      const auto space = space_of(type, "gpt2", targets);
      const nlohmann::json constants = space->constants();
      const std::string record = "record";
      const auto again =
          recorded_space(std::string(space->kind()), JsonCursor(constants, record), space->trainables());
      EXPECT_EQ(again->kind(), space->kind());
      EXPECT_EQ(again->constants(), space->constants());
      again->check_model(read_description(model("gpt2")), "here");
      EXPECT_THROW(again->check_model(read_description(model("llama")), "there"), Error);
    }
  }
}

/// By hand, of a module's weight and bias together; embeddings and the last norm are of no layer.
TEST(DenseSpace, UpdateSizesAreOfModules) {
  const ModelFiles files(model("gpt2"));
  const auto space = space_of(SpaceType::dense, "gpt2");
  const std::vector<float> start = space->initial_values(1, model("gpt2"));
  std::vector<float> values = start;
  double weight = 0.0;
  std::int64_t moved = 0;
  std::size_t at = 0;
  for (const TrainableSpec& spec : space->trainables()) {
    for (std::int64_t e = 0; e < spec.count(); ++e, ++at) {
      if (spec.name.find("h.1.mlp.c_fc.") == std::string::npos) continue;
      weight += static_cast<double>(start[at]) * static_cast<double>(start[at]);
      values[at] += 0.5f;
      ++moved;
    }
  }
  const std::vector<UpdateSize> sizes = space->update_sizes(files, start, values);
  std::size_t modules = 0;
  for (const UpdateSize& size : sizes) {
    const bool is_moved = size.module.ends_with("h.1.mlp.c_fc");
    EXPECT_NEAR(size.update, is_moved ? 0.5 * std::sqrt(static_cast<double>(moved)) : 0.0, 1e-5)
        << size.module;
    if (is_moved) {
      EXPECT_DOUBLE_EQ(size.weight, std::sqrt(weight));
    }
    const std::size_t layer = size.module.find("h.");
    EXPECT_EQ(size.layer, layer == std::string::npos ? -1 : size.module.at(layer + 2) - '0') << size.module;
    modules += is_moved;
  }
  EXPECT_EQ(modules, 1u);
  EXPECT_EQ(sizes.size(), static_cast<std::size_t>(files.description.layers * 6 + 3));
}

/// Log-probabilities of a few tokens under each of some probes, all in one forward or one by one.
std::vector<float> scores(Backend& backend, const ModelFiles& files, const Perturbations& perturbations,
                          std::span<const Probe> probes, bool one_by_one) {
  Decoder decoder(backend, files.description, perturbations);
  decoder.load(files, {});
  PackedBatch batch;
  batch.offsets = {0, 5, 8};
  for (std::int32_t i = 0; i < 8; ++i) {
    batch.tokens.push_back(3 + 2 * i);
    batch.positions.push_back(i < 5 ? i : i - 5);
  }
  batch.loss_rows = {2, 4, 7};
  batch.target_rows = {0, 1, 2};
  batch.target_tokens = {7, 11, 5};
  DeviceBatch on_device;
  decoder.upload(batch, on_device);
  decoder.reserve(shape_of(batch), std::ssize(probes));
  decoder.begin(on_device);
  std::vector<float> all;
  const std::size_t at_once = one_by_one ? 1 : probes.size();
  for (std::size_t first = 0; first < probes.size(); first += at_once) {
    ProbeTable table;
    backend.upload(probes.subspan(first, at_once), NoiseKind::gaussian, table);
    const Buffer memory = backend.allocate(3 * at_once * sizeof(float));
    View out = dense(memory.data(), DType::f32, 1, 3);
    out.probe_stride = 3;
    decoder.evaluate(table, out);
    std::vector<float> some(3 * at_once);
    backend.read(some, out, static_cast<std::int64_t>(at_once));
    all.insert(all.end(), some.begin(), some.end());
  }
  if (one_by_one) {
    EXPECT_LE(decoder.arena_high_water(), decoder.activation_bytes(shape_of(batch), std::ssize(probes)));
  } else {
    EXPECT_EQ(decoder.arena_high_water(), decoder.activation_bytes(shape_of(batch), std::ssize(probes)));
  }
  return all;
}

using Case = std::pair<std::string, SpaceType>;

/// A probe's forward is that of a model whose tensors were moved by eps z and written to files: the same bits
/// in fp32, for every place that a tensor has in any family, in any company of probes.
class DenseProbe : public ::testing::TestWithParam<Case> {};

TEST_P(DenseProbe, IsTheModelWithMovedTensors) {
  const auto [name, type] = GetParam();
  const ModelFiles files(model(name));
  const auto space = space_of(type, name);
  const std::vector<float> values = space->initial_values(1, model(name));
  const std::vector<Probe> probes{{9, 0, 0.01f}, {9, 0, -0.01f}, {5, 1, 0.02f}, {0, 2, 0.0f}};
  for (const DeviceKind device : {DeviceKind::reference, DeviceKind::cpu}) {
    const auto backend = make_backend({.device = device, .threads = 2});
    const Trainables trainables = make_trainables(*backend, space->trainables(), values);
    const Perturbations perturbations = space->perturbations(files.description, trainables);
    const std::vector<float> together = scores(*backend, files, perturbations, probes, false);
    EXPECT_EQ(scores(*backend, files, perturbations, probes, true), together);
    for (std::size_t p = 0; p < probes.size(); ++p) {
      std::vector<float> moved = values;
      std::size_t at = 0;
      for (std::uint32_t id = 0; id < space->trainables().size(); ++id) {
        for (std::int64_t e = 0; e < space->trainables()[id].count(); ++e, ++at) {
          moved[at] =
              perturbed(moved[at], 0.0f, probes[p].epsilon,
                        noise_at(NoiseKind::gaussian, probes[p].seed, id, static_cast<std::uint64_t>(e)));
        }
      }
      const test::ScratchFolder scratch;
      space->write_merged(files, moved, DType::f32, scratch / "moved", false);
      const ModelFiles of_probe(scratch / "moved");
      const std::vector<float> expected = scores(*backend, of_probe, {}, {{Probe{}}}, true);
      for (std::size_t j = 0; j < expected.size(); ++j) {
        // Where the forward adds 1 to a norm's weight, the sum is rounded before the probe moves it.
        EXPECT_NEAR(together[3 * p + j], expected[j],
                    name.starts_with("gemma") ? 1e-5 * std::abs(expected[j]) : 0.0)
            << name << " probe " << p;
        if (p < 3) {
          EXPECT_NE(together[3 * p + j], together[9 + j]);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, DenseProbe,
    ::testing::Values(Case("gpt2", SpaceType::dense), Case("llama", SpaceType::dense),
                      Case("opt_350m", SpaceType::dense), Case("gptj", SpaceType::dense),
                      Case("gemma2", SpaceType::dense), Case("qwen3", SpaceType::dense),
                      Case("gpt_neox", SpaceType::dense), Case("phi3", SpaceType::dense),
                      Case("opt_norm_after", SpaceType::dense), Case("llama_tied", SpaceType::dense),
                      Case("gpt2", SpaceType::vectors), Case("mixtral", SpaceType::vectors)),
    [](const auto& which) { return which.param.first + "_" + std::string(name_of(which.param.second)); });

/// Some tensors of a product alone: the others of it are as they were loaded.
TEST(DenseSpace, TrainsAModuleBesideOthers) {
  const ModelFiles files(model("llama"));
  const auto backend = make_backend({.device = DeviceKind::cpu, .threads = 1});
  for (const std::vector<std::string>& targets :
       {std::vector<std::string>{"k_proj"}, {"up_proj"}, {"lm_head"}, {"norm"}}) {
    const auto space = space_of(SpaceType::dense, "llama", targets);
    const std::vector<float> values = space->initial_values(1, model("llama"));
    const Trainables trainables = make_trainables(*backend, space->trainables(), values);
    const std::vector<Probe> probes{{9, 0, 0.05f}, {9, 0, 0.0f}};
    const std::vector<float> found =
        scores(*backend, files, space->perturbations(files.description, trainables), probes, false);
    const std::vector<float> base = scores(*backend, files, {}, {{Probe{}}}, true);
    for (std::size_t j = 0; j < 3; ++j) {
      EXPECT_EQ(found[3 + j], base[j]) << targets.front();
      EXPECT_NE(found[j], base[j]) << targets.front();
    }
  }
}

}  // namespace
}  // namespace mezzo
