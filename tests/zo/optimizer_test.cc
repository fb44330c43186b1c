#include "mezzo/zo/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzo/backend/devices.h"
#include "mezzo/core/error.h"
#include "mezzo/core/update.h"
#include "mezzo/io/json_cursor.h"

namespace mezzo {
namespace {

std::string refusal_of(const std::string& kind, const nlohmann::json& constants) {
  const std::string file = "run";
  try {
    static_cast<void>(recorded_optimizer(kind, JsonCursor(constants, file)));
    return "accepted";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST(Optimizer, SgdIsTheUpdateOfEveryElement) {
  const std::vector<TrainableSpec> specs = {{"a", 2, 3}, {"b", 1, 5}};
  std::vector<float> values(11);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.25f * static_cast<float>(i) - 1.0f;
  const StepRecord record{.step = 7, .learning_rate = 0.01f, .coefficients = {0.5f, -2.0f, 0.0f}};
  const RunNoise run{.seed = 42, .noise = NoiseKind::rademacher};
  const auto optimizer = configure_optimizer({.weight_decay = 0.1});

  const auto backend = make_backend({.device = DeviceKind::reference});
  Trainables trainables = make_trainables(*backend, specs, values);
  EXPECT_TRUE(optimizer->state(specs).empty());
  EXPECT_FALSE(optimizer->reads_probe_losses());
  Trainables state = make_trainables(*backend, optimizer->state(specs), {});
  optimizer->apply(record, run, *backend, trainables, state);
  EXPECT_TRUE(read_values(*backend, state).empty());

  const std::vector<std::uint64_t> seeds = direction_seeds(run, record.step, 3);
  const std::vector<float> found = read_values(*backend, trainables);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t tensor = i < 6 ? 0 : 1;
    EXPECT_EQ(found[i], updated(values[i], tensor, i < 6 ? i : i - 6, seeds.data(),
                                record.coefficients.data(), 3, run.noise, record.learning_rate, 0.1f))
        << i;
  }
}

/// Takes `steps` steps down theta^2 / 2 from theta = 1 and returns theta behind each. There is one trainable
/// number and one direction of signs, so that c = g z makes the sum over directions g = theta exactly.
std::vector<float> descent(DeviceKind device, const OptimizerConfig& config, int steps) {
  const std::vector<TrainableSpec> specs = {{"a", 1, 1}};
  const auto optimizer = configure_optimizer(config);
  const auto backend = make_backend({.device = device, .threads = 1});
  Trainables trainables = make_trainables(*backend, specs, std::vector<float>{1.0f});
  const std::vector<TrainableSpec> kept = optimizer->state(specs);
  Trainables state = make_trainables(*backend, kept, std::vector<float>(kept.size(), 0.0f));
  const RunNoise run{.seed = 42, .noise = NoiseKind::rademacher};
  std::vector<float> thetas;
  float theta = 1.0f;
  for (std::uint64_t step = 0; step < static_cast<std::uint64_t>(steps); ++step) {
    const float z = noise_at(run.noise, direction_seeds(run, step, 1)[0], 0, 0);
    const StepRecord record{
        .step = step, .learning_rate = static_cast<float>(config.learning_rate), .coefficients = {theta * z}};
    optimizer->apply(record, run, *backend, trainables, state);
    theta = read_values(*backend, trainables)[0];
    thetas.push_back(theta);
  }
  return thetas;
}

struct Oracle {
  OptimizerConfig config;
  std::vector<float> thetas;
  float tolerance = 0.0f;  // 0: all numbers are sums of few powers of two, and every operation is exact
};

const Oracle oracles[] = {
    // theta - theta / 2
    {{.learning_rate = 0.5}, {0.5f, 0.25f, 0.125f}},
    // m: 1, 0.5 + 0.5, 0.5 + 0, 0.25 - 0.25
    {{.type = OptimizerType::momentum, .learning_rate = 0.5, .momentum = 0.5}, {0.5f, 0.0f, -0.25f, -0.25f}},
    // m: 1, 0.5 + 0.25; d = g + m / 2: 1.5, 0.25 + 0.375
    {{.type = OptimizerType::momentum, .learning_rate = 0.5, .momentum = 0.5, .nesterov = true},
     {0.25f, -0.0625f}},
    // m: 1, 1.25, 1.125, 0.8125, 0.40625: the sign stays that of the way so far; then
    // 0.203125 - 0.25 < 0 turns around.
    {{.type = OptimizerType::sign, .learning_rate = 0.25, .momentum = 0.5},
     {0.75f, 0.5f, 0.25f, 0.0f, -0.25f, 0.0f}},
    // m is g: at theta = 0 the sign is 0, and the step too.
    {{.type = OptimizerType::sign, .learning_rate = 0.5, .momentum = 0.0}, {0.5f, 0.0f, 0.0f}},
    // In fp64, by numpy: m = m / 2 + g / 2, v = 3 v / 4 + g g / 4, and
    // theta -= 0.25 (m / (1 - 0.5^t)) / (sqrt(v / (1 - 0.75^t)) + 1e-8).
    {{.type = OptimizerType::adam, .learning_rate = 0.25, .betas = {0.5, 0.75}},
     {0.7500000025f, 0.5094373929779693f, 0.2884688919493024f, 0.10131186344268125f},
     1e-6f},
    // The mean over one element is its own.
    {{.type = OptimizerType::adam,
      .learning_rate = 0.25,
      .betas = {0.5, 0.75},
      .second_moment = SecondMoment::scalar},
     {0.7500000025f, 0.5094373929779693f, 0.2884688919493024f, 0.10131186344268125f},
     1e-6f},
    // Decay: theta (1 - 1/8) - theta / 2
    {{.learning_rate = 0.5, .weight_decay = 0.25}, {0.375f, 0.140625f}},
    // The start pulls: drift 0, then -0.5: 0.5 + 0.25 * 0.5 - 0.25; then -0.625: 0.375 + 0.15625 - 0.1875
    {{.learning_rate = 0.5, .anchor_decay = 0.5}, {0.5f, 0.375f, 0.34375f}},
};

TEST(Optimizer, EveryRuleGoesDownAParabolaAsByHand) {
  for (const DeviceKind device : {DeviceKind::reference, DeviceKind::cpu}) {
    for (const Oracle& oracle : oracles) {
      const std::vector<float> found = descent(device, oracle.config, static_cast<int>(oracle.thetas.size()));
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_NEAR(found[i], oracle.thetas[i], oracle.tolerance)
            << name_of(oracle.config.type) << " step " << i;
      }
    }
  }
}

TEST(Optimizer, KeepsItsTensorsInBytewiseOrderOfTheirNames) {
  // "a" and "a.b": a suffix would turn the order of the trainables around.
  const std::vector<TrainableSpec> specs = {{"a", 2, 3}, {"a.b", 1, 5}};
  for (const OptimizerType type : {OptimizerType::momentum, OptimizerType::sign, OptimizerType::adam}) {
    const auto state = configure_optimizer({.type = type, .anchor_decay = 0.1})->state(specs);
    EXPECT_EQ(state.size(), type == OptimizerType::adam ? 6u : 4u);
    EXPECT_TRUE(std::ranges::is_sorted(state, {}, &TrainableSpec::name));
    EXPECT_EQ(state[0], (TrainableSpec{"drift.a", 2, 3}));
  }
}

// Two tensors of two elements and one direction of signs: acc is c or -c, its mean square c^2, so that
// v = c^2 / 4 behind the first step (beta2 3/4) and v / (1 - beta2) = c^2: each element moves by lr.
TEST(Optimizer, AScalarSecondMomentIsOfEachTensorsMeanSquare) {
  const std::vector<TrainableSpec> specs = {{"a", 1, 2}, {"b", 2, 1}};
  const auto optimizer = configure_optimizer(
      {.type = OptimizerType::adam, .betas = {0.5, 0.75}, .second_moment = SecondMoment::scalar});
  const std::vector<TrainableSpec> kept = optimizer->state(specs);
  ASSERT_EQ(kept.size(), 4u);
  EXPECT_EQ(kept[3], (TrainableSpec{"exp_avg_sq.b", 1, 1}));
  for (const DeviceKind device : {DeviceKind::reference, DeviceKind::cpu}) {
    const auto backend = make_backend({.device = device, .threads = 2});
    Trainables trainables = make_trainables(*backend, specs, std::vector<float>(4, 0.0f));
    Trainables state = make_trainables(*backend, kept, std::vector<float>(6, 0.0f));
    const StepRecord record{.step = 0, .learning_rate = 0.125f, .coefficients = {3.0f}};
    optimizer->apply(record, {.seed = 42, .noise = NoiseKind::rademacher}, *backend, trainables, state);
    const std::vector<float> v = read_values(*backend, state);
    EXPECT_EQ(v[4], 2.25f);
    EXPECT_EQ(v[5], 2.25f);
    for (const float theta : read_values(*backend, trainables)) EXPECT_NEAR(std::abs(theta), 0.125f, 1e-6f);
  }
}

TEST(Optimizer, AStateOfAnotherSizeIsRefused) {
  const auto backend = make_backend({.device = DeviceKind::reference});
  const std::vector<TrainableSpec> specs = {{"a", 1, 1}};
  Trainables trainables = make_trainables(*backend, specs, std::vector<float>{1.0f});
  Trainables none = make_trainables(*backend, {}, {});
  UpdateStep step;
  step.factors.rule = UpdateRule::adam;
  EXPECT_THROW(backend->update(trainables, none, step, NoiseKind::gaussian), DeviceError);
}

TEST(Optimizer, ARecordMakesTheSameOneAgain) {
  const OptimizerConfig configs[] = {
      {.weight_decay = 0.1},
      {.weight_decay = 0.1, .anchor_decay = 0.3},
      {.type = OptimizerType::momentum, .momentum = 0.7, .nesterov = true},
      {.type = OptimizerType::sign, .anchor_decay = 0.3, .momentum = 0.95},
      {.type = OptimizerType::adam, .betas = {0.8, 0.999}, .adam_epsilon = 1e-6},
      {.type = OptimizerType::adam, .second_moment = SecondMoment::scalar}};
  for (const OptimizerConfig& config : configs) {
    const auto optimizer = configure_optimizer(config);
    EXPECT_EQ(optimizer->kind(), name_of(config.type));
    const nlohmann::json constants = optimizer->constants();
    const std::string file = "run";
    const auto again = recorded_optimizer(std::string(optimizer->kind()), JsonCursor(constants, file));
    EXPECT_EQ(again->kind(), optimizer->kind());
    EXPECT_EQ(again->constants(), optimizer->constants());
  }
  // Plain gradient descent is recorded as before there were other rules.
  EXPECT_EQ(configure_optimizer({.weight_decay = 0.5})->constants().dump(), "{\"weight_decay\":0.5}");
}

TEST(Optimizer, WhatARecordCannotSayIsRefusedByName) {
  EXPECT_EQ(refusal_of("lion", {{"weight_decay", 0.0}}),
            "run: the optimizer \"lion\" is unknown, expected sgd or momentum or sign or adam");
  EXPECT_EQ(refusal_of("momentum", {{"weight_decay", 0.0}, {"momentum", 1.0}, {"nesterov", false}}),
            "run: momentum is 1.0; expected a number >= 0 and below 1");
  EXPECT_EQ(
      refusal_of("adam",
                 {{"weight_decay", 0.0}, {"betas", {0.5}}, {"epsilon", 1e-8}, {"second_moment", "full"}}),
      "run: betas is a list of 1; expected a list of two numbers");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", 0.0}, {"anchor_decay", -1.0}}),
            "run: anchor_decay is -1.0; expected a number >= 0, finite in fp32");
  EXPECT_EQ(refusal_of("sgd", nlohmann::json::object()),
            "run: weight_decay is missing; expected a finite number");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", -0.5}}),
            "run: weight_decay is -0.5; expected a number >= 0, finite in fp32");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", 1e300}}),
            "run: weight_decay is 1e+300; expected a number >= 0, finite in fp32");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", "0"}}),
            "run: weight_decay is \"0\"; expected a finite number");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", 0.0}, {"momentum", 0.9}}),
            "run: the key \"momentum\" is not known here; expected kind, weight_decay, anchor_decay, master");
  EXPECT_EQ(refusal_of("sgd", nlohmann::json::array()), "run is a list of 0; expected an object");
}

}  // namespace
}  // namespace mezzo
