#include "mezzo/zo/parameter_space.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/safetensors.h"
#include "mezzo/model/family.h"
#include "scratch.h"

namespace mezzo {
namespace {

const std::string record = "record";

std::string model(const std::string& name) { return MEZZO_TEST_DATA "/models/" + name; }

std::string refusal_of(const std::string& kind, const nlohmann::json& constants,
                       const std::vector<TrainableSpec>& trainables) {
  try {
    static_cast<void>(recorded_space(kind, JsonCursor(constants, record), trainables));
    return "accepted";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST(ParameterSpace, LoraNamesWhatTheConfigLeftToTheFamily) {
  const Description description = read_description(model("llama"));
  Config config;
  const ConfiguredSpace configured = configure_space(config, description, "");
  EXPECT_FALSE(configured.start);
  EXPECT_EQ(configured.space->kind(), "lora");
  configured.space->resolve(config);
  EXPECT_EQ(config.lora.target_modules.names, description.names.query_value);
  EXPECT_EQ(configured.space->trainables(), lora_trainables(description, {}));
  EXPECT_EQ(configured.space->initial_values(5, ""), initial_values(configured.space->trainables(), 5));
}

TEST(ParameterSpace, ARecordMakesTheSameOneAgain) {
  const Description description = read_description(model("llama"));
  for (const AdapterConfig& config :
       {AdapterConfig{.r = 2},
        AdapterConfig{.r = 3, .lora_alpha = 0.1, .all_linear = true, .use_rslora = true},
        AdapterConfig{.r = 1, .target_modules = {"v_proj"}, .layers_to_transform = {{1}}}}) {
    const auto space = lora_space(description, config);
    const nlohmann::json constants = space->constants();
    const auto again = recorded_space("lora", JsonCursor(constants, record), space->trainables());
    EXPECT_EQ(again->constants(), space->constants());
    EXPECT_EQ(again->trainables(), space->trainables());
    const Trainables trainables = list_trainables(space->trainables());
    const Perturbations expected = lora_perturbations(description, config, trainables);
    const Perturbations found = again->perturbations(description, trainables);
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, perturbation] : expected) {
      const auto& tail = std::get<LowRankTail>(perturbation);
      const auto& same = std::get<LowRankTail>(found.at(name));
      EXPECT_EQ(same.a_noise.id, tail.a_noise.id);
      EXPECT_EQ(same.b_noise.id, tail.b_noise.id);
      EXPECT_EQ(same.scaling, tail.scaling);
    }
    again->check_model(description, "here");
    EXPECT_THROW(again->check_model(read_description(model("gpt2")), "there"), Error);
  }
}

TEST(ParameterSpace, AnAdapterStartsItAndLeavesIt) {
  const std::string directory = model("llama") + "/adapter";
  const Description description = read_description(model("llama"));
  const Adapter adapter = read_adapter(directory, description);
  Config config;
  config.lora.r.reset();
  config.lora.lora_alpha.reset();
  config.lora.adapter = directory;
  const ConfiguredSpace configured = configure_space(config, description, "");
  ASSERT_TRUE(configured.start);
  EXPECT_EQ(configured.start->key, "lora.adapter");
  EXPECT_EQ(configured.start->values, adapter.values);
  EXPECT_EQ(configured.space->constants(), space_of(adapter)->constants());

  const test::ScratchFolder scratch;
  configured.space->write_adapter(scratch / "copy", description, adapter.values, "");
  EXPECT_EQ(configured.space->read_adapter(scratch / "copy"), adapter.values);
  // The copy stands in where the original is gone.
  config.lora.adapter = scratch / "gone";
  EXPECT_EQ(configure_space(config, description, scratch / "copy").start->values, adapter.values);
  EXPECT_THROW(configure_space(config, description, ""), Error);
  const auto other = lora_space(description, {.r = 1});
  EXPECT_THROW(static_cast<void>(other->read_adapter(scratch / "copy")), InputError);
}

/// B A of a module's factors by the definition, [out, in], times the scaling.
std::vector<double> product_of(const AdapterConfig& config, const LinearModule& module,
                               std::span<const float> values) {
  const ModelFiles files(model("gpt2"));
  const auto parts = values_by_name(lora_trainables(files.description, config), values);
  const std::span<const float> a = parts.at(lora_a_name(module.name));
  const std::span<const float> b = parts.at(lora_b_name(module.name));
  const auto r = static_cast<std::size_t>(config.r);
  const auto in = static_cast<std::size_t>(module.in);
  std::vector<double> product(static_cast<std::size_t>(module.out) * in);
  for (std::size_t i = 0; i < product.size(); ++i) {
    for (std::size_t k = 0; k < r; ++k)
      product[i] += double{config.scaling()} * double{b[i / in * r + k]} * double{a[k * in + i % in]};
  }
  return product;
}

double norm(const std::vector<double>& values) {
  double squares = 0.0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

// GPT-2 stores its weights as [in, out]. A fresh adapter's start is B0 = 0; the other start has a B0, beside
// which the update is small. Tolerance: sums of some thousand terms in double.
TEST(ParameterSpace, LoraUpdatesAreTheNormsOfProducts) {
  const ModelFiles files(model("gpt2"));
  const AdapterConfig config{.r = 3, .lora_alpha = 12, .all_linear = true};
  const auto space = lora_space(files.description, config);
  const std::vector<float> fresh = space->initial_values(5, "");
  std::vector<float> far = fresh;
  std::vector<float> near = fresh;
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    far[i] += static_cast<float>(i % 11) - 5.0f;
    near[i] = far[i] + 1e-4f * (static_cast<float>(i % 7) - 3.0f);
  }
  EXPECT_THROW(static_cast<void>(space->update_sizes(files, fresh, {})), Error);
  const std::vector<LinearModule> modules = adapted_modules(files.description, config);
  struct Case {
    const std::vector<float>&start, &now;
  };
  for (const auto& [start, now] : {Case{fresh, far}, Case{far, near}, Case{far, far}}) {
    const std::vector<UpdateSize> sizes = space->update_sizes(files, start, now);
    ASSERT_EQ(sizes.size(), modules.size());
    for (std::size_t m = 0; m < modules.size(); ++m) {
      EXPECT_EQ(sizes[m].module, modules[m].name);
      EXPECT_EQ(sizes[m].layer, modules[m].layer);
      std::vector<double> moved = product_of(config, modules[m], now);
      const std::vector<double> before = product_of(config, modules[m], start);
      for (std::size_t i = 0; i < moved.size(); ++i) moved[i] -= before[i];
      EXPECT_NEAR(sizes[m].update, norm(moved), 1e-9 * norm(moved)) << sizes[m].module;
      const TensorInfo& stored = files.weight(modules[m].name + ".weight");
      std::vector<float> weight(static_cast<std::size_t>(stored.elements()));
      to_float(stored, weight);
      const double expected = norm({weight.begin(), weight.end()});
      EXPECT_NEAR(sizes[m].weight, expected, 1e-12 * expected) << sizes[m].module;
    }
  }
}

TEST(ParameterSpace, WhatARecordCannotSayIsRefusedByName) {
  const auto space = lora_space(read_description(model("llama")), {.r = 2});
  const std::vector<TrainableSpec>& trainables = space->trainables();
  const nlohmann::json good = space->constants();
  EXPECT_EQ(refusal_of("lora", good, trainables), "accepted");
  EXPECT_EQ(
      refusal_of("prefix", good, trainables),
      "record: the parameter space \"prefix\" is unknown, expected lora or low_rank or dense or vectors");
  const auto with = [&](const std::string& key, const nlohmann::json& value) {
    nlohmann::json changed = good;
    changed[key] = value;
    return refusal_of("lora", changed, trainables);
  };
  for (const char* r :
       {"0", "-2", "2.0", "1e+300", "1099511627776", "18446744073709551615", "\"2\"", "null"}) {
    EXPECT_EQ(with("r", nlohmann::json::parse(r)),
              fmt::format("record: r is {}; expected a whole number from 1 to 2147483647", r));
  }
  EXPECT_EQ(with("lora_alpha", 1e300),
            "record: lora_alpha is 1e+300; expected a number that is finite in fp32");
  EXPECT_EQ(with("use_rslora", 0), "record: use_rslora is 0; expected true or false");
  EXPECT_EQ(with("target_modules", nlohmann::json::object()),
            "record: target_modules is an object; expected a list");
  EXPECT_EQ(with("target_modules", "all"), "record: target_modules is \"all\"; expected a list");
  EXPECT_EQ(with("target_modules", nlohmann::json::array()),
            "record: target_modules is a list of 0; expected all-linear or a list of names");
  for (const char* target : {"1", "\"\""}) {
    EXPECT_EQ(with("target_modules", nlohmann::json::array({nlohmann::json::parse(target)})),
              fmt::format("record: target_modules[0] is {}; expected the name of a module", target));
  }
  for (const char* layer : {"-1", "1e10", "0.5", "4294967296"}) {
    const nlohmann::json parsed = nlohmann::json::parse(layer);
    EXPECT_EQ(
        with("layers_to_transform", nlohmann::json::array({0, parsed})),
        fmt::format("record: layers_to_transform[1] is {}; expected a whole number from 0 to 2147483647",
                    parsed.dump()));
  }
  nlohmann::json less = good;
  less.erase("layers_to_transform");
  EXPECT_EQ(refusal_of("lora", less, trainables), "record: layers_to_transform is missing; expected a list");
  EXPECT_NE(with("dora", true).find("record: the key \"dora\" is not known here"), std::string::npos);
  // The rank of the constants is that of every factor, and factors come in pairs.
  EXPECT_NE(with("r", 3).find("is not the first of a pair"), std::string::npos);
  EXPECT_NE(
      refusal_of("lora", good, {trainables.begin(), trainables.end() - 1}).find("is not the first of a pair"),
      std::string::npos);
}

}  // namespace
}  // namespace mezzo
