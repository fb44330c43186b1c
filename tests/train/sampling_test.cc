#include "mezzo/train/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace mezzo {
namespace {

/// Logits of tokens 0 to 3: probabilities 0.2, 0.5, 0.0001, 0.2999.
std::vector<float> four() { return {std::log(0.2f), std::log(0.5f), std::log(0.0001f), std::log(0.2999f)}; }

/// Shares of the tokens in many draws.
std::vector<double> shares(const std::vector<float>& logits, const Sampling& sampling) {
  constexpr int draws = 4000;
  std::vector<double> share(logits.size());
  for (std::uint64_t n = 0; n < draws; ++n)
    share[static_cast<std::size_t>(next_token(logits, sampling, n))] += 1.0;
  for (double& of : share) of /= draws;
  return share;
}

// 4 standard deviations of a share in 4000 draws: 4 sqrt(0.25 / 4000) = 0.032.
constexpr double chance = 0.032;

TEST(Sampling, GreedyTakesTheLargestLogitAndOfEqualOnesTheFirst) {
  EXPECT_EQ(next_token(four(), {}, 0), 1);
  EXPECT_EQ(next_token(std::vector<float>{1.0f, 2.0f, 2.0f}, {.seed = 7}, 5), 1);
}

TEST(Sampling, DrawsWithTheProbabilitiesOfTheSoftmax) {
  const std::vector<double> share = shares(four(), {.temperature = 1.0});
  EXPECT_NEAR(share[0], 0.2, chance);
  EXPECT_NEAR(share[1], 0.5, chance);
  EXPECT_NEAR(share[3], 0.3, chance);
}

TEST(Sampling, TemperatureDividesTheLogits) {
  // At 1/2 the probabilities are as their squares: 0.04, 0.25, 0, 0.09 of 0.38.
  const std::vector<double> share = shares(four(), {.temperature = 0.5});
  EXPECT_NEAR(share[0], 0.04 / 0.38, chance);
  EXPECT_NEAR(share[1], 0.25 / 0.38, chance);
  EXPECT_NEAR(share[3], 0.09 / 0.38, chance);
}

TEST(Sampling, TheNucleusHasTheFewestTokensThatReachTopP) {
  // 0.5 is less than 0.7, 0.5 + 0.3 is not.
  const std::vector<double> share = shares(four(), {.temperature = 1.0, .top_p = 0.7});
  EXPECT_EQ(share[0], 0.0);
  EXPECT_EQ(share[2], 0.0);
  EXPECT_NEAR(share[1], 0.5 / 0.8, chance);
  for (const double top_p : {0.0, 0.4})
    EXPECT_EQ(shares(four(), {.temperature = 1.0, .top_p = top_p})[1], 1.0);
}

TEST(Sampling, DrawsAreAFunctionOfSeedAndNumber) {
  const auto drawn = [](std::uint64_t seed) {
    std::vector<std::int32_t> tokens;
    for (std::uint64_t n = 0; n < 64; ++n)
      tokens.push_back(next_token(four(), {.temperature = 1.0, .seed = seed}, n));
    return tokens;
  };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
}

}  // namespace
}  // namespace mezzo
