#include "mezzo/core/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <set>

#include "mezzo/core/update.h"
#include "noise_golden.h"

namespace mezzo {
namespace {

std::uint32_t u32(std::uint64_t value) { return static_cast<std::uint32_t>(value); }

TEST(Philox, KnownAnswers) {
  const PhiloxWords zero = philox4x32_10({{0, 0, 0, 0}}, {0, 0});
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  for (const auto& c : noise_golden("philox")) {
    ASSERT_EQ(c.size(), 10u);
    const PhiloxWords words =
        philox4x32_10({{u32(c[0]), u32(c[1]), u32(c[2]), u32(c[3])}}, {u32(c[4]), u32(c[5])});
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(words.word[i], c[6 + i]);
  }
}

TEST(Philox, CounterAndKeyLayout) {
  const PhiloxWords counter = philox_counter(0x1122334455667788u, 9, Purpose::sampling);
  EXPECT_EQ(counter.word[0], 0x55667788u);
  EXPECT_EQ(counter.word[1], 0x11223344u);
  EXPECT_EQ(counter.word[2], 9u);
  EXPECT_EQ(counter.word[3], 4u);
  EXPECT_EQ(philox_key(0x1122334455667788u).low, 0x55667788u);
  EXPECT_EQ(philox_key(0x1122334455667788u).high, 0x11223344u);
}

TEST(DirectionSeed, Goldens) {
  for (const auto& c : noise_golden("direction")) EXPECT_EQ(direction_seed(c[0], c[1], u32(c[2])), c[3]);
}

TEST(DirectionSeed, DiffersBetweenStepsDirectionsAndRuns) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t run = 0; run < 8; ++run) {
    for (std::uint64_t step = 0; step < 64; ++step) {
      for (std::uint32_t k = 0; k < 20; ++k) seeds.insert(direction_seed(run, step, k));
    }
  }
  EXPECT_EQ(seeds.size(), 8u * 64 * 20);
}

TEST(Normal, Goldens) {
  for (const auto& c : noise_golden("normal")) {
    const NormalPair pair = box_muller(u32(c[0]), u32(c[1]));
    EXPECT_EQ(ieee::to_bits(pair.first), c[2]) << std::hex << c[0] << " " << c[1];
    EXPECT_EQ(ieee::to_bits(pair.second), c[3]) << std::hex << c[0] << " " << c[1];
  }
}

/// Largest errors of box_muller against the same function of the words in double.
struct Errors {
  double absolute = 0.0;
  double relative = 0.0;

  void compare(std::uint32_t a, std::uint32_t b) {
    // log u = log1p(u - 1) where u is near 1, and an angle within an octant: both keep double's relative
    // precision.
    const double below_one = (4294967295.0 - a + 0.5) * 0x1p-32;
    const double radius =
        std::sqrt(-2.0 * (below_one < 0.5 ? std::log1p(-below_one) : std::log((a + 0.5) * 0x1p-32)));
    const std::uint32_t turn = b + 0x20000000u;
    const double angle =
        (static_cast<double>(turn & 0x3fffffffu) - 0x1p29 + 0.5) * 0x1p-29 * std::numbers::pi / 4.0;
    const double s = std::sin(angle);
    const double c = std::cos(angle);
    const double cosine[] = {c, -s, -c, s};
    const double sine[] = {s, c, -s, -c};
    const NormalPair pair = box_muller(a, b);
    compare_one(pair.first, radius * cosine[turn >> 30]);
    compare_one(pair.second, radius * sine[turn >> 30]);
  }

  void compare_one(float found, double expected) {
    const double error = std::abs(found - expected);
    absolute = std::max(absolute, error);
    relative = std::max(relative, error / std::abs(expected));
  }
};

// docs/numerics.md states these bounds, the relative one from all 2^32 values of either word. Half an ulp of
// it is the final rounding of the result (6.0e-8).
constexpr double relative_bound = 3.5e-7;
constexpr double absolute_bound = 8.0e-7;  // at |z| up to 6.77

TEST(Normal, ErrorAgainstDouble) {
  Errors errors;
  // Both words over a grid of odd stride (every residue modulo every power of two, every octant and binade).
  for (std::uint64_t i = 0; i < (1u << 22); ++i) errors.compare(u32(i * 1021), u32(i * 2654435761u));
  // Every word next to the ends of the range and to each place where the transform changes its form.
  for (const std::uint64_t place : {0x0ull, 0x01000000ull, 0x2aaaaaaaull, 0x40000000ull, 0x55555555ull,
                                    0x80000000ull, 0xaaaaaaaaull, 0xc0000000ull, 0xff000000ull}) {
    for (std::uint32_t i = 0; i < (1u << 15); ++i) {
      errors.compare(u32(place + i - (1u << 14)), i * 0x9e3779b9u);
    }
  }
  for (std::uint32_t octant = 0; octant < 8; ++octant) {
    for (std::uint32_t i = 0; i < (1u << 15); ++i) {
      errors.compare(i * 0x9e3779b9u, (octant << 29) + i - (1u << 14));
    }
  }
  errors.compare(0x996d2b71u, 0xc14a7221u);  // the largest relative error of all
  // Every power of two and its neighbours, in both words.
  for (int i = 0; i < 32; ++i) {
    for (std::uint32_t d = 0; d < 3; ++d) {
      for (std::uint32_t b = 0; b < 64; ++b) {
        errors.compare((1u << i) + d - 1, b << 26);
        errors.compare(~((1u << i) + d - 1), (1u << i) + d - 1 + (b << 26));
      }
    }
  }
  RecordProperty("largest_absolute_error", std::to_string(errors.absolute * 1e9) + "e-9");
  RecordProperty("largest_relative_error", std::to_string(errors.relative * 1e9) + "e-9");
  EXPECT_LT(errors.absolute, absolute_bound);
  EXPECT_LT(errors.relative, relative_bound);
  EXPECT_GT(errors.relative, 6.0e-8) << "a comparison that finds no rounding at all compares nothing";
}

TEST(Normal, RangeHasNeitherZerosNorSubnormals) {
  float largest = 0.0f;
  float smallest = FLT_MAX;
  for (const std::uint32_t a : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu}) {
    for (std::uint32_t quarter = 0; quarter < 4; ++quarter) {
      for (std::uint32_t offset = 0; offset < 5; ++offset) {
        const NormalPair pair = box_muller(a, (quarter << 30) + offset - 2);
        for (const float z : {pair.first, pair.second}) {
          largest = std::max(largest, std::abs(z));
          smallest = std::min(smallest, std::abs(z));
        }
      }
    }
  }
  EXPECT_NEAR(largest, 6.76371, 1e-5);  // sqrt(66 log 2)
  EXPECT_GT(smallest, 1.1e-14f);        // pi 2^-48
  EXPECT_LT(smallest, 1.2e-14f);
}

TEST(Noise, Goldens) {
  for (const auto& c : noise_golden("noise")) {
    const float z = noise_at(static_cast<NoiseKind>(c[0]), c[1], u32(c[2]), c[3]);
    EXPECT_EQ(ieee::to_bits(z), c[4])
        << "kind " << c[0] << " seed " << c[1] << " tensor " << c[2] << " element " << c[3];
  }
}

// The cases above are few: what changes one result in hundreds shows here.
TEST(Noise, GoldenOfManyNormals) {
  for (const auto& c : noise_golden("normals")) {
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < c[2]; ++i) {
      sum += element_hash(u32(c[1]), i, noise_at(NoiseKind::gaussian, c[0], u32(c[1]), i));
    }
    EXPECT_EQ(sum, c[3]);
  }
}

TEST(Noise, BlocksQuadsAndElementsAgree) {
  const std::uint64_t seed = 77;
  const std::uint32_t tensor = 5;
  for (const std::uint64_t block : {std::uint64_t{0}, std::uint64_t{3}, (std::uint64_t{1} << 32) + 1}) {
    const NoiseQuad normals = normal_block(seed, tensor, block);
    for (std::uint64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(normals.value[i], noise_at(NoiseKind::gaussian, seed, tensor, 4 * block + i));
      EXPECT_EQ(normals.value[i], noise4(NoiseKind::gaussian, seed, tensor, block).value[i]);
    }
    const PhiloxWords signs = sign_block(seed, tensor, block);
    for (std::uint64_t i = 0; i < 128; ++i) {
      const bool negative = (signs.word[i / 32] >> (i % 32) & 1) != 0;
      EXPECT_EQ(noise_at(NoiseKind::rademacher, seed, tensor, 128 * block + i), negative ? -1.0f : 1.0f);
      EXPECT_EQ(noise4(NoiseKind::rademacher, seed, tensor, 32 * block + i / 4).value[i % 4],
                negative ? -1.0f : 1.0f);
    }
  }
}

TEST(Initial, Goldens) {
  for (const auto& c : noise_golden("initial")) {
    const float bound = kaiming_bound(u32(c[3]));
    EXPECT_EQ(ieee::to_bits(bound), c[4]);
    EXPECT_EQ(ieee::to_bits(initial_uniform(c[0], u32(c[1]), c[2], bound)), c[5]);
  }
}

TEST(Initial, IsUniformWithinItsBounds) {
  const float bound = kaiming_bound(288);
  EXPECT_NEAR(bound, 1.0 / std::sqrt(288.0), 1e-8);
  EXPECT_EQ(symmetric_uniform(0x80000000u), -1.0f);
  EXPECT_EQ(symmetric_uniform(0x7fffffffu), 1.0f);
  EXPECT_EQ(symmetric_uniform(0u), -symmetric_uniform(0xffffffffu));
  constexpr std::uint64_t n = 200000;
  int bins[20] = {};
  double sum = 0.0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const double x = initial_uniform(11, 2, i, bound) / double{bound};
    ASSERT_LE(std::abs(x), 1.0);
    sum += x;
    ++bins[std::min(19, static_cast<int>((x + 1.0) * 10.0))];
  }
  EXPECT_LT(std::abs(sum / n), 4.0 / std::sqrt(3.0 * n));  // four standard deviations
  double chi2 = 0.0;
  for (const int count : bins) chi2 += (count - n / 20.0) * (count - n / 20.0) / (n / 20.0);
  EXPECT_LT(chi2, 43.8);  // 19 degrees of freedom, one chance in a thousand
}

TEST(Initial, SharesNoWordsWithNoise) {
  const PhiloxWords noise = philox4x32_10(philox_counter(0, 0, Purpose::noise), philox_key(42));
  const PhiloxWords initial = philox4x32_10(philox_counter(0, 0, Purpose::initial), philox_key(42));
  for (const std::uint32_t a : noise.word) {
    for (const std::uint32_t b : initial.word) EXPECT_NE(a, b);
  }
}

}  // namespace
}  // namespace mezzo
