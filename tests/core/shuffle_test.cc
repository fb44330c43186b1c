#include "mezzo/core/shuffle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/core/word_stream.h"
#include "noise_golden.h"

namespace mezzo {
namespace {

TEST(WordStream, Goldens) {
  for (const auto& c : noise_golden("below")) {
    WordStream words(c[0], c[1], Purpose::sampling);
    for (std::size_t i = 3; i < c.size(); ++i) EXPECT_EQ(words.below(static_cast<std::uint32_t>(c[2])), c[i]);
  }
}

// Without the rejection, bounds of this size would give every third value twice as often.
TEST(WordStream, LargeBoundsAreUnbiased) {
  constexpr std::uint32_t bound = 3u << 30;
  constexpr int n = 300000;
  WordStream words(5, 0, Purpose::sampling);
  int residues[3] = {};
  int thirds[3] = {};
  for (int i = 0; i < n; ++i) {
    const std::uint32_t x = words.below(bound);
    ASSERT_LT(x, bound);
    ++residues[x % 3];
    ++thirds[x >> 30];
  }
  const double deviation = std::sqrt(n * (1.0 / 3.0) * (2.0 / 3.0));
  for (int i = 0; i < 3; ++i) {
    EXPECT_LT(std::abs(residues[i] - n / 3.0), 4.0 * deviation);
    EXPECT_LT(std::abs(thirds[i] - n / 3.0), 4.0 * deviation);
  }
}

TEST(Shuffle, Goldens) {
  for (const auto& c : noise_golden("shuffle")) {
    const std::vector<std::uint32_t> expected(c.begin() + 3, c.end());
    EXPECT_EQ(shuffled_order(c[0], c[1], c[2]), expected);
  }
}

TEST(Shuffle, IsAPermutationOfItsOwnPerSeedAndEpoch) {
  for (const std::uint64_t n : {1, 2, 31, 33, 257, 1000}) {
    std::vector<std::uint32_t> identity(n);
    std::iota(identity.begin(), identity.end(), 0u);
    std::vector<std::uint32_t> order = shuffled_order(42, 3, n);
    if (n >= 31) {
      EXPECT_NE(order, identity);
      EXPECT_NE(order, shuffled_order(42, 4, n));
      EXPECT_NE(order, shuffled_order(43, 3, n));
      EXPECT_NE(order, shuffled_order(42, 3 + (std::uint64_t{1} << 32), n));
    }
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, identity);
  }
}

TEST(Shuffle, EveryOrderIsAsLikely) {
  constexpr int n = 48000;
  std::map<std::vector<std::uint32_t>, int> counts;
  for (int epoch = 0; epoch < n; ++epoch) ++counts[shuffled_order(9, static_cast<std::uint64_t>(epoch), 4)];
  ASSERT_EQ(counts.size(), 24u);
  double chi2 = 0.0;
  for (const auto& [order, count] : counts) chi2 += (count - n / 24.0) * (count - n / 24.0) / (n / 24.0);
  EXPECT_LT(chi2, 49.7);  // 23 degrees of freedom, one chance in a thousand
  EXPECT_GT(chi2, 7.5);   // and not suspiciously even
}

TEST(Shuffle, RefusesMoreThanItsIndicesHold) {
  EXPECT_THROW(shuffled_order(0, 0, std::uint64_t{1} << 32), Error);
}

}  // namespace
}  // namespace mezzo
