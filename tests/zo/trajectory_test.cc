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
  const StepRecord back = decode(bytes, 3, "file");
  EXPECT_EQ(back, record);
  EXPECT_TRUE(std::signbit(back.coefficients[0]));
  EXPECT_THROW(decode(bytes, 4, "file"), InputError);
}

TEST(Trajectory, SeedsDifferByRunStepAndDirection) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t run = 0; run < 4; ++run) {
    for (std::uint64_t step = 0; step < 4; ++step) {
      for (const std::uint64_t seed : direction_seeds(run, step, 31)) seeds.insert(seed);
    }
  }
  EXPECT_EQ(seeds.size(), 4u * 4u * 31u);
  EXPECT_EQ(direction_seeds(1, 2, 31)[30], direction_seeds(1, 2, 257)[30]);
}

}  // namespace
}  // namespace mezzo
