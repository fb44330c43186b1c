#include "mezzo/zo/trajectory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

TEST(Trajectory, RoundTripKeepsBits) {
  const StepRecord record{.step = 123456789012ull,
                          .learning_rate = 1e-3f,
                          .coefficients = {-0.0f, 3.5f, std::numeric_limits<float>::denorm_min()},
                          .loss = 0.1,
                          .gradient_norm = 7.25};
  const std::vector<std::byte> bytes = encode(record);
  EXPECT_EQ(bytes.size(), 28u + 4u * 3u);
  const StepRecord back = decode(bytes, {.directions = 3}, "file");
  EXPECT_EQ(back, record);
  EXPECT_TRUE(std::signbit(back.coefficients[0]));
  EXPECT_THROW(decode(bytes, {.directions = 4}, "file"), InputError);
}

TEST(Trajectory, RecordsHoldProbeLossesWhereTheRunSaysSo) {
  const StepRecord record{.step = 3,
                          .learning_rate = 0.5f,
                          .coefficients = {1.0f},
                          .loss = 0.1,
                          .gradient_norm = 2.0,
                          .probe_losses = {0.25, -0.0, 1e300}};
  const std::vector<std::byte> bytes = encode(record);
  EXPECT_EQ(bytes.size(), 28u + 4u + 8u * 3u);
  EXPECT_EQ(decode(bytes, {.directions = 1, .probe_losses = 3}, "file"), record);
  EXPECT_THROW(decode(bytes, {.directions = 1}, "file"), InputError);
  EXPECT_THROW(decode(bytes, {.directions = 1, .probe_losses = 2}, "file"), InputError);
}

TEST(Trajectory, RecordsHoldWhatTheEstimatorKeepsWhereTheRunSaysSo) {
  const StepRecord record{.step = 3,
                          .learning_rate = 0.5f,
                          .coefficients = {1.0f},
                          .loss = 0.1,
                          .gradient_norm = 2.0,
                          .probe_losses = {0.25, std::numeric_limits<double>::infinity()},
                          .estimator = {0.125, 0.0, 1e300}};
  const std::vector<std::byte> bytes = encode(record);
  EXPECT_EQ(bytes.size(), 28u + 4u + 8u * 2u + 8u * 3u);
  const RecordShape shape{.directions = 1, .probe_losses = 2, .estimator = 3};
  EXPECT_EQ(decode(bytes, shape, "file"), record);
  EXPECT_THROW(decode(bytes, {.directions = 1, .probe_losses = 2}, "file"), InputError);
  for (const double number : {-0.5, std::nan(""), std::numeric_limits<double>::infinity()}) {
    StepRecord refused = record;
    refused.estimator[1] = number;
    EXPECT_THROW(decode(encode(refused), shape, "file"), InputError) << number;
  }
}

TEST(Trajectory, NumbersThatNoStepHasAreRefused) {
  const StepRecord good{.step = 3, .learning_rate = 0.5f, .coefficients = {1.0f, 2.0f}};
  const auto accepted = [](const StepRecord& record) {
    try {
      return decode(encode(record), {.directions = 2}, "file").step == record.step;
    } catch (const InputError&) {
      return false;
    }
  };
  EXPECT_TRUE(accepted(good));
  StepRecord all_dropped = good;
  all_dropped.loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(accepted(all_dropped));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    StepRecord record = good;
    record.coefficients[1] = bad;
    EXPECT_FALSE(accepted(record));
    record = good;
    record.learning_rate = bad;
    EXPECT_FALSE(accepted(record));
  }
  StepRecord negative = good;
  negative.learning_rate = -0.5f;
  EXPECT_FALSE(accepted(negative));
}

TEST(Trajectory, SeedsDifferByRunStepAndDirection) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t run = 0; run < 4; ++run) {
    for (std::uint64_t step = 0; step < 4; ++step) {
      for (const std::uint64_t seed : direction_seeds({.seed = run}, step, 31)) seeds.insert(seed);
    }
  }
  EXPECT_EQ(seeds.size(), 4u * 4u * 31u);
  EXPECT_EQ(direction_seeds({.seed = 1}, 2, 31)[30], direction_seeds({.seed = 1}, 2, 257)[30]);
}

// Kept for three steps the directions of step t are those that a run of new ones each step has at t / 3.
TEST(Trajectory, DirectionsAreKeptForSomeSteps) {
  const RunNoise fresh{.seed = 7};
  const RunNoise kept{.seed = 7, .noise = NoiseKind::gaussian, .resample_steps = 3};
  for (std::uint64_t step = 0; step < 9; ++step) {
    EXPECT_EQ(direction_seeds(kept, step, 5), direction_seeds(fresh, step / 3, 5)) << step;
    const StepRecord record{.step = step, .coefficients = {1.0f, 2.0f}};
    const UpdateStep update = update_of(record, kept, {});
    EXPECT_EQ(update.seeds, direction_seeds(fresh, step / 3, 2)) << step;
    // How a weight in bf16 is rounded stays of the step.
    EXPECT_EQ(update.rounding.step, step);
    EXPECT_EQ(update.rounding.run_seed, 7u);
  }
}

}  // namespace
}  // namespace mezzo
