// Distribution and independence of the noise, on 2^27 (1.3e8) draws. Seeds are fixed, so that a case passes
// always or never: bounds are five standard deviations of what independent draws give, or a chance of about
// one in a thousand.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numbers>
#include <vector>

#include "kernels/cpu/noise.h"
#include "mezzo/core/philox.h"

namespace mezzo {
namespace {

#ifdef MEZZO_STATISTICS
constexpr bool enabled = true;
#else
constexpr bool enabled = false;
#endif

#define MEZZO_NEEDS_RELEASE() \
  if (!enabled) GTEST_SKIP() << "runs in release builds only"

constexpr std::int64_t chunk = 1 << 14;

/// P(Z <= x) of a standard normal.
double cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

TEST(NormalStatistics, MomentsTailsAndShape) {
  MEZZO_NEEDS_RELEASE();
  constexpr std::int64_t n = std::int64_t{1} << 27;
  constexpr int bins = 1000;  // of width 0.009 over [-4.5, 4.5], the first and the last open
  constexpr double low = -4.5;
  constexpr double width = 9.0 / bins;
  double sum1 = 0.0, sum2 = 0.0, sum3 = 0.0, sum4 = 0.0;
  std::array<std::int64_t, bins> counts{};
  std::array<std::int64_t, 3> tails{};  // |z| > 3, 4, 5
  std::vector<float> z(chunk);
  for (std::int64_t first = 0; first < n; first += chunk) {
    cpu::fill_noise(z.data(), chunk, NoiseKind::gaussian, 2026, 0, static_cast<std::uint64_t>(first));
    double part1 = 0.0, part2 = 0.0, part3 = 0.0, part4 = 0.0;
    for (const float value : z) {
      const double x = value, x2 = x * x;
      part1 += x;
      part2 += x2;
      part3 += x2 * x;
      part4 += x2 * x2;
      const int bin = static_cast<int>((std::clamp(x, low, -low) - low) * (1.0 / width));
      ++counts[static_cast<std::size_t>(std::min(bin, bins - 1))];
      const double magnitude = std::abs(x);
      if (magnitude > 3.0) ++tails[0];
      if (magnitude > 4.0) ++tails[1];
      if (magnitude > 5.0) ++tails[2];
    }
    sum1 += part1;
    sum2 += part2;
    sum3 += part3;
    sum4 += part4;
  }
  const double count = static_cast<double>(n);
  const double sigma = 1.0 / std::sqrt(count);
  EXPECT_LT(std::abs(sum1 / count), 5.0 * sigma);
  EXPECT_LT(std::abs(sum2 / count - 1.0), 5.0 * std::sqrt(2.0) * sigma);
  EXPECT_LT(std::abs(sum3 / count), 5.0 * std::sqrt(15.0) * sigma);
  EXPECT_LT(std::abs(sum4 / count - 3.0), 5.0 * std::sqrt(96.0) * sigma);

  for (std::size_t i = 0; i < tails.size(); ++i) {
    const double p = std::erfc((3.0 + static_cast<double>(i)) / std::numbers::sqrt2);
    EXPECT_LT(std::abs(static_cast<double>(tails[i]) - count * p), 5.0 * std::sqrt(count * p * (1.0 - p)))
        << "beyond " << 3 + i << " sigma: " << tails[i] << " of " << count * p;
  }

  double chi2 = 0.0, furthest = 0.0;
  std::int64_t below = 0;
  for (int i = 0; i < bins; ++i) {
    const double left = i == 0 ? 0.0 : cdf(low + i * width);
    const double right = i == bins - 1 ? 1.0 : cdf(low + (i + 1) * width);
    const double expected = count * (right - left);
    const auto found = counts[static_cast<std::size_t>(i)];
    chi2 += (static_cast<double>(found) - expected) * (static_cast<double>(found) - expected) / expected;
    below += found;
    furthest = std::max(furthest, std::abs(static_cast<double>(below) / count - right));
  }
  EXPECT_LT(chi2, 999.0 + 5.0 * std::sqrt(2.0 * 999.0));
  EXPECT_GT(chi2, 999.0 - 5.0 * std::sqrt(2.0 * 999.0)) << "too good to be random";
  EXPECT_LT(furthest * std::sqrt(count),
            1.95);  // Kolmogorov-Smirnov at the bins' edges, one chance in a thousand
}

using Source = std::function<void(float* out, std::int64_t first)>;

/// Correlation of two sequences, and of their squares (for normals) as multiples of what independence allows.
void expect_uncorrelated(const std::string& what, std::int64_t n, const Source& a, const Source& b) {
  std::vector<float> x(chunk), y(chunk);
  double sum = 0.0, squares = 0.0;
  for (std::int64_t first = 0; first < n; first += chunk) {
    a(x.data(), first);
    b(y.data(), first);
    double part = 0.0, part_squares = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double u = x[i], v = y[i];
      part += u * v;
      part_squares += (u * u - 1.0) * (v * v - 1.0);
    }
    sum += part;
    squares += part_squares;
  }
  const double count = static_cast<double>(n);
  EXPECT_LT(std::abs(sum), 5.0 * std::sqrt(count)) << what;
  EXPECT_LT(std::abs(squares), 5.0 * 2.0 * std::sqrt(count)) << what << " (squares)";
}

Source noise(NoiseKind kind, std::uint64_t seed, std::uint32_t tensor, std::int64_t shift = 0) {
  return [=](float* out, std::int64_t first) {
    cpu::fill_noise(out, chunk, kind, seed, tensor, static_cast<std::uint64_t>(first + shift));
  };
}

class NoiseIndependence : public testing::TestWithParam<NoiseKind> {};

TEST_P(NoiseIndependence, OfNeighbouringSeedsTensorsAndElements) {
  MEZZO_NEEDS_RELEASE();
  constexpr std::int64_t n = std::int64_t{1} << 24;
  const NoiseKind kind = GetParam();
  const Source base = noise(kind, 42, 3);
  expect_uncorrelated("seed + 1", n, base, noise(kind, 43, 3));
  expect_uncorrelated("seed + 2^32", n, base, noise(kind, 42 + (std::uint64_t{1} << 32), 3));
  expect_uncorrelated("tensor + 1", n, base, noise(kind, 42, 4));
  expect_uncorrelated("seed + 1, tensor - 1", n, base, noise(kind, 43, 2));
  for (const std::int64_t lag : {1, 2, 3, 4, 5, 32, 127, 128, 1024}) {
    expect_uncorrelated("element + " + std::to_string(lag), n, base, noise(kind, 42, 3, lag));
  }
  const auto direction = [&](std::uint64_t step, std::uint32_t k) {
    return noise(kind, direction_seed(42, step, k), 0);
  };
  expect_uncorrelated("direction + 1", n, direction(0, 0), direction(0, 1));
  expect_uncorrelated("step + 1", n, direction(0, 0), direction(1, 0));
}

// As a run sees them: one element over many seeds or tensors.
TEST_P(NoiseIndependence, OfOneElementOverSeedsAndTensors) {
  MEZZO_NEEDS_RELEASE();
  constexpr int n = 1 << 20;
  for (const bool over_seeds : {true, false}) {
    double sum = 0.0, lagged = 0.0;
    float last = 0.0f;
    for (int i = 0; i < n; ++i) {
      float z = 0.0f;
      const auto place = static_cast<std::uint32_t>(i);
      cpu::fill_noise(&z, 1, GetParam(), over_seeds ? place : 42, over_seeds ? 0 : place, 5);
      sum += z;
      lagged += double{z} * last;
      last = z;
    }
    EXPECT_LT(std::abs(sum), 5.0 * std::sqrt(n));
    EXPECT_LT(std::abs(lagged), 5.0 * std::sqrt(n));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, NoiseIndependence,
                         testing::Values(NoiseKind::gaussian, NoiseKind::rademacher), [](const auto& tested) {
                           return tested.param == NoiseKind::gaussian ? "gaussian" : "rademacher";
                         });

TEST(SignStatistics, EachBitIsFairAndBytesAreUniform) {
  MEZZO_NEEDS_RELEASE();
  constexpr std::int64_t n = std::int64_t{1} << 27;
  std::array<double, 128> sums{};
  std::array<std::int64_t, 256> bytes{};
  std::vector<float> z(chunk);
  for (std::int64_t first = 0; first < n; first += chunk) {
    cpu::fill_noise(z.data(), chunk, NoiseKind::rademacher, 2026, 0, static_cast<std::uint64_t>(first));
    std::array<float, 128> part{};
    for (std::size_t i = 0; i < z.size(); i += 128) {
      for (std::size_t j = 0; j < 128; ++j) part[j] += z[i + j];
    }
    for (std::size_t j = 0; j < 128; ++j) sums[j] += part[j];
    for (std::size_t i = 0; i < z.size(); i += 8) {
      std::size_t byte = 0;
      for (std::size_t j = 0; j < 8; ++j) byte = byte * 2 + (z[i + j] < 0.0f ? 1 : 0);
      ++bytes[byte];
    }
  }
  double total = 0.0;
  for (const double sum : sums) {
    EXPECT_LT(std::abs(sum), 5.0 * std::sqrt(n / 128.0));
    total += sum;
  }
  EXPECT_LT(std::abs(total), 5.0 * std::sqrt(static_cast<double>(n)));
  const double expected = static_cast<double>(n) / 8.0 / 256.0;
  double chi2 = 0.0;
  for (const std::int64_t count : bytes) {
    chi2 += (static_cast<double>(count) - expected) * (static_cast<double>(count) - expected) / expected;
  }
  EXPECT_LT(std::abs(chi2 - 255.0), 5.0 * std::sqrt(2.0 * 255.0));
}

}  // namespace
}  // namespace mezzo
