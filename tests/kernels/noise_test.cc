#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cpu/noise.h"
#include "kernels/reference/noise.h"

namespace mezzo {
namespace {

constexpr float untouched = 12345.0f;

class FillNoise : public testing::TestWithParam<NoiseKind> {};

// Every count and start of a tile's length around the edges of blocks and tiles, with bytes before and after
// watched.
TEST_P(FillNoise, CpuHasTheReferencesBits) {
  const std::uint64_t far = (std::uint64_t{1} << 34) - 130;  // the block number grows past 32 bits on the way
  for (const std::int64_t count : {0, 1, 2, 3, 4, 5, 31, 33, 127, 128, 129, 257, 1023, 1024, 1025, 3000}) {
    for (const std::uint64_t first :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{4},
          std::uint64_t{126}, std::uint64_t{129}, std::uint64_t{1024}, far, (std::uint64_t{1} << 39) - 257}) {
      const auto n = static_cast<std::size_t>(count);
      std::vector<float> expected(n + 2, untouched);
      std::vector<float> found(n + 2, untouched);
      reference::fill_noise(expected.data() + 1, count, GetParam(), 0x123456789abcdefu, 6, first);
      cpu::fill_noise(found.data() + 1, count, GetParam(), 0x123456789abcdefu, 6, first);
      ASSERT_EQ(std::memcmp(expected.data(), found.data(), expected.size() * sizeof(float)), 0)
          << "count " << count << ", first element " << first;
      ASSERT_EQ(found.front(), untouched);
      ASSERT_EQ(found.back(), untouched);
      for (std::size_t i = 1; i <= n; ++i) ASSERT_NE(found[i], untouched);
    }
  }
}

TEST_P(FillNoise, SeedsAndTensorsHaveNoiseOfTheirOwn) {
  std::vector<float> base(256), other(256);
  cpu::fill_noise(base.data(), 256, GetParam(), 7, 0, 0);
  for (const auto& [seed, tensor] :
       {std::pair<std::uint64_t, std::uint32_t>{8, 0}, {7, 1}, {7 + (1ull << 32), 0}}) {
    cpu::fill_noise(other.data(), 256, GetParam(), seed, tensor, 0);
    EXPECT_NE(base, other) << "seed " << seed << ", tensor " << tensor;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, FillNoise, testing::Values(NoiseKind::gaussian, NoiseKind::rademacher),
                         [](const auto& tested) {
                           return tested.param == NoiseKind::gaussian ? "gaussian" : "rademacher";
                         });

}  // namespace
}  // namespace mezzo
