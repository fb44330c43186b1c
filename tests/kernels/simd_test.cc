#include "kernels/cpu/simd.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace mezzo::cpu::simd {
namespace {

float exp_of(float x) {
  float lanes[8];
  store(lanes, exp(broadcast(x)));
  return lanes[3];
}

/// Error in units in the last place of the result, a normal float.
double ulps(float actual, double expected) {
  const double unit = std::ldexp(1.0, std::ilogb(static_cast<float>(expected)) - 23);
  return std::abs(actual - expected) / unit;
}

TEST(Exp, IsWithinOneUlpWhereTheResultIsNormal) {
  double worst = 0.0;
  float where = 0.0f;
  // Every 509th float (a prime: no alignment with the polynomial's intervals) of either sign, up to the ends
  // of the range: 4.3 million.
  for (std::uint32_t bits = 0; bits < 0x42b17218u; bits += 509) {
    for (const float x : {std::bit_cast<float>(bits), -std::bit_cast<float>(bits)}) {
      if (x < -87.0f) continue;
      const double error = ulps(exp_of(x), std::exp(double{x}));
      if (error > worst) {
        worst = error;
        where = x;
      }
    }
  }
  EXPECT_LE(worst, 1.0) << "at " << where;
  RecordProperty("worst_ulps", std::to_string(worst));
}

TEST(Exp, UnderflowsGraduallyAndOverflowsToInfinity) {
  // Below 2^-126 the unit is that of a subnormal, and the two powers of 2 may round it once more.
  for (float x = -88.0f; x > -104.0f; x -= 0.37f) {
    EXPECT_NEAR(exp_of(x), std::exp(double{x}), 2 * std::numeric_limits<float>::denorm_min()) << x;
  }
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exp_of(-110.0f), 0.0f);
  EXPECT_EQ(exp_of(-infinity), 0.0f);
  EXPECT_EQ(exp_of(89.0f), infinity);
  EXPECT_EQ(exp_of(infinity), infinity);
  EXPECT_TRUE(std::isnan(exp_of(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(exp_of(0.0f), 1.0f);
  EXPECT_EQ(exp_of(-0.0f), 1.0f);
}

TEST(Lanes, MasksReductionsAndPartialRows) {
  const float values[8] = {1, 2, 4, 8, 16, 32, 64, -128};
  EXPECT_EQ(sum(load(values)), -1.0f);
  EXPECT_EQ(max(load(values)), 64.0f);
  for (std::int64_t count = 0; count <= 8; ++count) {
    float expected = 0.0f;
    for (std::int64_t i = 0; i < count; ++i) expected += values[i];
    EXPECT_EQ(sum(load(values, mask_of(count))), expected) << count;
    float to[8] = {};
    store(to, mask_of(count), broadcast(1.0f));
    EXPECT_EQ(sum(load(to)), static_cast<float>(count)) << count;
  }
}

}  // namespace
}  // namespace mezzo::cpu::simd
