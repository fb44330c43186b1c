#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cpu/update.h"
#include "kernels/reference/noise.h"
#include "kernels/reference/update.h"
#include "update_rules.h"

namespace mezzo {
namespace {

std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

std::vector<float> trainables(std::int64_t count) {
  std::vector<float> theta(static_cast<std::size_t>(count));
  reference::fill_noise(theta.data(), count, NoiseKind::gaussian, 99, 0, 0);
  if (count > 2) theta[1] = -0.0f;
  return theta;
}

/// What a rule keeps of `count` elements.
struct Kept {
  std::vector<float> drift, first, second;

  Kept(const UpdateFactors& f, std::int64_t count)
      : drift(f.anchored ? static_cast<std::size_t>(count) : 0),
        first(keeps_momentum(f.rule) ? static_cast<std::size_t>(count) : 0),
        second(keeps_second_moment(f.rule) ? static_cast<std::size_t>(f.scalar_second ? 1 : count) : 0) {}
  UpdateState state() {
    const auto place = [](std::vector<float>& v) { return v.empty() ? nullptr : v.data(); };
    return {.drift = place(drift), .first = place(first), .second = place(second)};
  }
  std::vector<std::uint32_t> bits() const {
    std::vector<std::uint32_t> all;
    for (const auto* each : {&drift, &first, &second}) {
      const std::vector<std::uint32_t> some = bits_of(*each);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
};

TEST(Update, EveryRuleHasTheReferencesBitsOnTheCpu) {
  const std::vector<std::uint64_t> seeds = {11, 13, 14};
  const std::vector<float> coefficients = {0.7f, -1.25f, 3.1e-3f};
  for (const UpdateFactors& factors : test::all_update_rules(5e-3f, 0.02f)) {
    for (const std::int64_t count : {0, 1, 33, 2050, 9001}) {
      std::vector<float> expected = trainables(count), found = expected;
      Kept of_reference(factors, count), of_cpu(factors, count);
      for (std::uint32_t step = 0; step < 3; ++step) {  // the state of one step is what the next begins with
        reference::update(expected.data(), of_reference.state(), count, step, seeds, coefficients,
                          NoiseKind::gaussian, factors);
        cpu::update(found.data(), of_cpu.state(), count, step, seeds, coefficients, NoiseKind::gaussian,
                    factors, 3);
      }
      ASSERT_EQ(bits_of(found), bits_of(expected)) << "rule " << static_cast<int>(factors.rule);
      ASSERT_EQ(of_cpu.bits(), of_reference.bits()) << "rule " << static_cast<int>(factors.rule);
    }
  }
}

/// Odd shapes, ranks 1 and 3; the reference makes each element's noise by itself.
TEST(Update, NoiseOfLowRankHasTheReferencesBitsOnTheCpu) {
  const std::vector<std::uint64_t> seeds = {11, 13, 14};
  const std::vector<float> coefficients = {0.7f, 0.0f, 3.1e-3f};
  for (const UpdateFactors& factors : test::all_update_rules(5e-3f, 0.02f)) {
    for (const auto& [rows, cols] :
         {std::pair<std::int64_t, std::int64_t>{1, 1}, {31, 1}, {1, 33}, {257, 33}}) {
      for (const std::int64_t rank : {1, 3}) {
        const NoiseKind kind = rank == 1 ? NoiseKind::gaussian : NoiseKind::rademacher;
        const std::int64_t count = rows * cols;
        std::vector<float> expected = trainables(count), found = expected;
        Kept of_reference(factors, count), of_cpu(factors, count);
        for (std::uint32_t step = 0; step < 2; ++step) {
          const TensorNoise noise(step, rank, cols);
          reference::update(expected.data(), of_reference.state(), count, noise, seeds, coefficients, kind,
                            factors);
          cpu::update(found.data(), of_cpu.state(), count, noise, seeds, coefficients, kind, factors, 3);
        }
        ASSERT_EQ(bits_of(found), bits_of(expected)) << rows << " x " << cols << ", rank " << rank;
        ASSERT_EQ(of_cpu.bits(), of_reference.bits());
      }
    }
  }
}

/// By hand: theta - lr c u v / sqrt(2) with the factors' own noise.
TEST(Update, NoiseOfLowRankIsAnOuterProduct) {
  constexpr std::int64_t rows = 3, cols = 5;
  std::vector<float> theta(rows * cols, 0.0f), u(rows * 2), v(2 * cols);
  const std::vector<std::uint64_t> seeds = {5};
  const std::vector<float> coefficients = {2.0f};
  cpu::update(theta.data(), {}, rows * cols, TensorNoise(3, 2, cols), seeds, coefficients,
              NoiseKind::gaussian, sgd_factors(0.25f, 0.0f), 2);
  reference::fill_noise(u.data(), rows * 2, NoiseKind::gaussian, 5, {3, Purpose::outer_rows}, 0);
  reference::fill_noise(v.data(), 2 * cols, NoiseKind::gaussian, 5, {3, Purpose::outer_columns}, 0);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) {
      const double z = (double{u[2 * i]} * v[j] + double{u[2 * i + 1]} * v[cols + j]) / std::sqrt(2.0);
      EXPECT_NEAR(theta[i * cols + j], -0.5 * z, 1e-6);
    }
  }
}

TEST(Update, CpuHasTheReferencesBitsOnAnyNumberOfThreads) {
  const std::vector<std::uint64_t> seeds = {11, 0xfedcba9876543210u, 13, 14, 15};
  const std::vector<float> coefficients = {0.7f, -1.25f, 0.0f, 3.1e-3f, -2.0e2f};
  for (const NoiseKind kind : {NoiseKind::gaussian, NoiseKind::rademacher}) {
    for (const std::int64_t count : {0, 1, 31, 33, 257, 1023, 1024, 1025, 5000}) {
      std::vector<float> expected = trainables(count);
      reference::update(expected.data(), {}, count, 4, seeds, coefficients, kind, sgd_factors(5e-3f, 0.02f));
      for (const int threads : {1, 2, 3, 8}) {
        std::vector<float> found = trainables(count);
        cpu::update(found.data(), {}, count, 4, seeds, coefficients, kind, sgd_factors(5e-3f, 0.02f),
                    threads);
        ASSERT_EQ(bits_of(found), bits_of(expected)) << "count " << count << ", threads " << threads;
      }
    }
  }
}

TEST(Update, WithoutDirectionsOnlyDecays) {
  std::vector<float> theta = {2.0f, -4.0f};
  cpu::update(theta.data(), {}, 2, 0, {}, {}, NoiseKind::gaussian, sgd_factors(0.5f, 0.25f), 1);
  EXPECT_EQ(theta, (std::vector<float>{1.75f, -3.5f}));
}

TEST(Update, MovesAgainstTheNoise) {
  std::vector<float> theta(1000, 0.0f), z(1000);
  const std::vector<std::uint64_t> seeds = {5};
  const std::vector<float> coefficients = {2.0f};
  cpu::update(theta.data(), {}, 1000, 3, seeds, coefficients, NoiseKind::gaussian, sgd_factors(0.25f, 0.0f),
              2);
  reference::fill_noise(z.data(), 1000, NoiseKind::gaussian, 5, 3, 0);
  for (std::size_t i = 0; i < z.size(); ++i) EXPECT_EQ(theta[i], -0.5f * z[i]);  // powers of two: exact
}

std::vector<std::uint16_t> halves(const std::vector<float>& values) {
  std::vector<std::uint16_t> result;
  for (const float value : values)
    result.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16));
  return result;
}

TEST(Bf16Master, CpuHasTheReferencesBitsOnAnyNumberOfThreads) {
  const std::vector<std::uint64_t> seeds = {11, 13};
  const std::vector<float> coefficients = {0.7f, -1.25f};
  for (const UpdateFactors& factors : test::all_update_rules(5e-3f, 0.02f)) {
    for (const std::int64_t count : {1, 31, 1025, 9001}) {
      for (const int threads : {1, 3}) {
        std::vector<std::uint16_t> expected = halves(trainables(count)), found = expected;
        Kept of_reference(factors, count), of_cpu(factors, count);
        for (std::uint32_t step = 0; step < 3; ++step) {
          reference::update(expected.data(), of_reference.state(), count, 2, seeds, coefficients,
                            NoiseKind::gaussian, factors, {.run_seed = 7, .step = step});
          cpu::update(found.data(), of_cpu.state(), count, 2, seeds, coefficients, NoiseKind::gaussian,
                      factors, threads, {.run_seed = 7, .step = step});
        }
        ASSERT_EQ(found, expected) << "rule " << static_cast<int>(factors.rule);
        ASSERT_EQ(of_cpu.bits(), of_reference.bits());
        EXPECT_EQ(cpu::hash(found.data(), count, 2, threads), reference::hash(expected.data(), count, 2));
      }
    }
  }
}

/// A step of 2^-12 from 1 is a 32nd of the way to the next number of bf16: it is taken by as many elements.
TEST(Bf16Master, StepsBelowThePrecisionAreTakenOnAverage) {
  constexpr std::int64_t count = 1 << 16;
  UpdateFactors factors = sgd_factors(1.0f, 0.0f);
  factors.decay = -0x1p-12f;  // theta (1 + 2^-12)
  std::vector<std::uint16_t> theta(count, 0x3f80);
  std::vector<std::uint16_t> other = theta;
  cpu::update(theta.data(), {}, count, 0, {}, {}, NoiseKind::gaussian, factors, 2,
              {.run_seed = 3, .step = 1});
  std::int64_t up = 0;
  for (const std::uint16_t each : theta) {
    ASSERT_TRUE(each == 0x3f80 || each == 0x3f81);
    up += each == 0x3f81;
  }
  // Binomial: 2048 on average, a standard deviation of 44.5.
  EXPECT_NEAR(static_cast<double>(up), count / 32.0, 5 * 44.5);
  cpu::update(other.data(), {}, count, 0, {}, {}, NoiseKind::gaussian, factors, 2,
              {.run_seed = 3, .step = 2});
  EXPECT_NE(other, theta);  // each step rounds by numbers of its own
}

TEST(Bf16Master, RoundingByHand) {
  const auto round = [](std::uint32_t word, std::uint32_t bits) {
    return std::bit_cast<std::uint32_t>(RoundToBf16{bits}(std::bit_cast<float>(word)));
  };
  EXPECT_EQ(round(0x3f800000, 0xffff), 0x3f800000u);  // what is exact stays
  EXPECT_EQ(round(0x3f800001, 0xfffe), 0x3f800000u);
  EXPECT_EQ(round(0x3f800001, 0xffff), 0x3f810000u);
  EXPECT_EQ(round(0xbf80ffff, 0x0000), 0xbf800000u);
  EXPECT_EQ(round(0xbf80ffff, 0x0001), 0xbf810000u);
  EXPECT_EQ(round(0x3fffffff, 0x0001), 0x40000000u);  // into the next binade
  EXPECT_EQ(round(0x00000001, 0xffff), 0x00010000u);  // subnormal
  EXPECT_EQ(round(0x80000000, 0xffff), 0x80000000u);
  EXPECT_EQ(round(0x7f7fffff, 0xffff), 0x7f7f0000u);  // finite stays finite
  EXPECT_EQ(round(0xff7fffff, 0xffff), 0xff7f0000u);
  EXPECT_EQ(round(0x7f800000, 0xffff), 0x7f800000u);  // infinity
  EXPECT_EQ(round(0xff800000, 0x0001), 0xff800000u);
  EXPECT_EQ(round(0x7f800001, 0x0000), 0x7fc00000u);  // NaN
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(round(0xffffffff, 0xffff))));
}

TEST(Hash, CpuHasTheReferencesOnAnyNumberOfThreads) {
  for (const std::int64_t count : {0, 1, 31, 33, 257, 1025, 5000}) {
    const std::vector<float> theta = trainables(count);
    const std::uint64_t expected = reference::hash(theta.data(), count, 2);
    for (const int threads : {1, 2, 3, 8}) EXPECT_EQ(cpu::hash(theta.data(), count, 2, threads), expected);
  }
}

TEST(Hash, SeesOneBit) {
  std::vector<float> theta = trainables(5000);
  const std::uint64_t before = cpu::hash(theta.data(), 5000, 2, 2);
  theta[4321] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(theta[4321]) ^ 1u);
  EXPECT_NE(cpu::hash(theta.data(), 5000, 2, 2), before);
}

}  // namespace
}  // namespace mezzo
