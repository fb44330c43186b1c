#include "mezzo/zo/optimizer.h"
#include "mezzo/backend/devices.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

  const std::vector<std::uint64_t> seeds = direction_seeds(run.seed, record.step, 3);
  const std::vector<float> found = read_values(*backend, trainables);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t tensor = i < 6 ? 0 : 1;
    EXPECT_EQ(found[i], updated(values[i], tensor, i < 6 ? i : i - 6, seeds.data(),
                                record.coefficients.data(), 3, run.noise, record.learning_rate, 0.1f))
        << i;
  }
}

TEST(Optimizer, ARecordMakesTheSameOneAgain) {
  const auto optimizer = configure_optimizer({.weight_decay = 0.1});
  EXPECT_EQ(optimizer->kind(), "sgd");
  const nlohmann::json constants = optimizer->constants();
  const std::string file = "run";
  const auto again = recorded_optimizer("sgd", JsonCursor(constants, file));
  EXPECT_EQ(again->kind(), "sgd");
  EXPECT_EQ(again->constants(), optimizer->constants());
}

TEST(Optimizer, WhatARecordCannotSayIsRefusedByName) {
  EXPECT_EQ(refusal_of("adam", {{"weight_decay", 0.0}}),
            "run: the optimizer \"adam\" is unknown, expected sgd");
  EXPECT_EQ(refusal_of("sgd", nlohmann::json::object()),
            "run: weight_decay is missing; expected a finite number");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", -0.5}}),
            "run: weight_decay is -0.5; expected a number >= 0, finite in fp32");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", 1e300}}),
            "run: weight_decay is 1e+300; expected a number >= 0, finite in fp32");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", "0"}}),
            "run: weight_decay is \"0\"; expected a finite number");
  EXPECT_EQ(refusal_of("sgd", {{"weight_decay", 0.0}, {"momentum", 0.9}}),
            "run: the key \"momentum\" is not known here; expected kind, weight_decay");
  EXPECT_EQ(refusal_of("sgd", nlohmann::json::array()), "run is a list of 0; expected an object");
}

}  // namespace
}  // namespace mezzo
