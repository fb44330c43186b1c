#include "mezzo/core/update.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "noise_golden.h"

namespace mezzo {
namespace {

TEST(Update, Goldens) {
  for (const auto& c : noise_golden("update")) {
    const auto number = [&](std::size_t i) { return ieee::from_bits(static_cast<std::uint32_t>(c[i])); };
    std::vector<std::uint64_t> seeds;
    std::vector<float> coefficients;
    for (std::size_t k = 0; k < c[7]; ++k) {
      seeds.push_back(c[8 + 2 * k]);
      coefficients.push_back(number(9 + 2 * k));
    }
    const float result =
        updated(number(0), static_cast<std::uint32_t>(c[1]), c[2], seeds.data(), coefficients.data(),
                static_cast<std::int64_t>(seeds.size()), static_cast<NoiseKind>(c[3]), number(4), number(5));
    EXPECT_EQ(ieee::to_bits(result), c[6]) << std::hex << "theta " << c[0] << " element " << c[2];
  }
}

TEST(Update, ADroppedDirectionLeavesNoTrace) {
  const std::uint64_t seeds[] = {1, 2, 3};
  const std::uint64_t kept[] = {1, 3};
  const float dropped[] = {0.5f, 0.0f, -0.25f};
  const float coefficients[] = {0.5f, -0.25f};
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const float with = updated(0.1f, 0, i, seeds, dropped, 3, NoiseKind::gaussian, 1e-2f, 0.1f);
    const float without = updated(0.1f, 0, i, kept, coefficients, 2, NoiseKind::gaussian, 1e-2f, 0.1f);
    EXPECT_EQ(ieee::to_bits(with), ieee::to_bits(without));
  }
}

TEST(Hash, Goldens) {
  for (const auto& c : noise_golden("hash")) {
    const float value = ieee::from_bits(static_cast<std::uint32_t>(c[2]));
    EXPECT_EQ(element_hash(static_cast<std::uint32_t>(c[0]), c[1], value), c[3]);
  }
}

TEST(Hash, DependsOnEveryBitOfValueElementAndTensor) {
  const std::uint32_t bits = 0x3e99999au;
  std::set<std::uint64_t> hashes{element_hash(3, 1000, ieee::from_bits(bits))};
  for (int i = 0; i < 32; ++i) hashes.insert(element_hash(3, 1000, ieee::from_bits(bits ^ (1u << i))));
  for (int i = 0; i < 64; ++i)
    hashes.insert(element_hash(3, 1000 ^ (std::uint64_t{1} << i), ieee::from_bits(bits)));
  for (int i = 0; i < 32; ++i) hashes.insert(element_hash(3 ^ (1u << i), 1000, ieee::from_bits(bits)));
  EXPECT_EQ(hashes.size(), 1u + 32 + 64 + 32);
}

TEST(Hash, SwappedElementsAndTensorsChangeTheSum) {
  const float a = 0.25f, b = -3.0f;
  EXPECT_NE(element_hash(0, 0, a) + element_hash(0, 1, b), element_hash(0, 0, b) + element_hash(0, 1, a));
  EXPECT_NE(element_hash(0, 7, a) + element_hash(1, 7, b), element_hash(0, 7, b) + element_hash(1, 7, a));
  EXPECT_NE(element_hash(0, 0, 0.0f), element_hash(0, 0, -0.0f));
}

}  // namespace
}  // namespace mezzo
