#include "kernels/reference/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace mezzo::reference {
namespace {

/// Logits of tokens 0 to 3: probabilities 0.2, 0.5, 0.0001, 0.2999.
std::vector<float> four() { return {std::log(0.2f), std::log(0.5f), std::log(0.0001f), std::log(0.2999f)}; }

std::int32_t chosen(const std::vector<float>& logits, const Sampling& sampling, std::uint64_t key,
                    std::uint32_t place) {
  return choose_token(logits.data(), std::ssize(logits), sampling, key, place);
}

/// Shares of the tokens in many draws.
std::vector<double> shares(const std::vector<float>& logits, const Sampling& sampling) {
  constexpr int draws = 4000;
  std::vector<double> share(logits.size());
  for (std::uint32_t n = 0; n < draws; ++n)
    share[static_cast<std::size_t>(chosen(logits, sampling, draw_key(42, 0, 0, 0), n))] += 1.0;
  for (double& of : share) of /= draws;
  return share;
}

// 4 standard deviations of a share in 4000 draws: 4 sqrt(0.25 / 4000) = 0.032.
constexpr double chance = 0.032;

TEST(Sampling, GreedyTakesTheLargestLogitAndOfEqualOnesTheFirst) {
  EXPECT_EQ(chosen(four(), {}, 0, 0), 1);
  EXPECT_EQ(chosen({1.0f, 2.0f, 2.0f}, {}, 7, 5), 1);
}

TEST(Sampling, WhatIsNotANumberChoosesNothing) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(chosen({1.0f, std::nanf(""), 2.0f}, {.temperature = temperature}, 0, 0), -1);
    EXPECT_EQ(chosen({-infinity, -infinity}, {.temperature = temperature}, 0, 0), -1);
    EXPECT_EQ(chosen({-infinity, 0.0f}, {.temperature = temperature}, 0, 0), 1);
  }
}

TEST(Sampling, GumbelNumbersAreThoseOfTheirWords) {
  // -log(-log u), u = (word + 1/2) / 2^32.
  for (const std::uint32_t word :
       {0u, 1u, 77u, 0x7fffffffu, 0x80000000u, 0xa2000000u, 0xfffffff0u, 0xffffffffu}) {
    const double u = (word + 0.5) / 0x1p32;
    const double want = -std::log(u < 0.5 ? -std::log(u) : -std::log1p(-(0xffffffffu - word + 0.5) / 0x1p32));
    EXPECT_NEAR(gumbel(word), want, 4e-7 * std::max(1.0, std::abs(want))) << word;
  }
}

TEST(Sampling, DrawsWithTheProbabilitiesOfTheSoftmax) {
  const std::vector<double> share = shares(four(), {.temperature = 1.0f});
  EXPECT_NEAR(share[0], 0.2, chance);
  EXPECT_NEAR(share[1], 0.5, chance);
  EXPECT_NEAR(share[3], 0.3, chance);
}

TEST(Sampling, TemperatureDividesTheLogits) {
  // At 1/2 the probabilities are as their squares: 0.04, 0.25, 0, 0.09 of 0.38.
  const std::vector<double> share = shares(four(), {.temperature = 0.5f});
  EXPECT_NEAR(share[0], 0.04 / 0.38, chance);
  EXPECT_NEAR(share[1], 0.25 / 0.38, chance);
  EXPECT_NEAR(share[3], 0.09 / 0.38, chance);
}

TEST(Sampling, TheNucleusHasTheFewestTokensThatReachTopP) {
  // 0.5 is less than 0.7, 0.5 + 0.3 is not.
  const std::vector<double> share = shares(four(), {.temperature = 1.0f, .top_p = 0.7f});
  EXPECT_EQ(share[0], 0.0);
  EXPECT_EQ(share[2], 0.0);
  EXPECT_NEAR(share[1], 0.5 / 0.8, chance);
  for (const float top_p : {0.0f, 0.4f})
    EXPECT_EQ(shares(four(), {.temperature = 1.0f, .top_p = top_p})[1], 1.0);
}

TEST(Sampling, DrawsAreAFunctionOfSeedStepExampleSampleAndPlace) {
  const auto drawn = [](std::uint64_t key, std::uint32_t first) {
    std::vector<std::int32_t> tokens;
    for (std::uint32_t place = first; place < first + 64; ++place)
      tokens.push_back(chosen(four(), {.temperature = 1.0f}, key, place));
    return tokens;
  };
  const std::vector<std::int32_t> want = drawn(draw_key(1, 2, 3, 4), 0);
  EXPECT_EQ(drawn(draw_key(1, 2, 3, 4), 0), want);
  for (const std::uint64_t key :
       {draw_key(0, 2, 3, 4), draw_key(1, 0, 3, 4), draw_key(1, 2, 0, 4), draw_key(1, 2, 3, 0)})
    EXPECT_NE(drawn(key, 0), want);
  EXPECT_NE(drawn(draw_key(1, 2, 3, 4), 1), want);
}

}  // namespace
}  // namespace mezzo::reference
