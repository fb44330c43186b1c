#include "mezzo/train/curvature_watch.h"

#include <gtest/gtest.h>

#include <random>

namespace mezzo {
namespace {

/// How often a watch speaks over so many windows of normal bends.
int warnings(double mean, double deviation, int windows) {
  CurvatureWatch watch;
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal(mean, deviation);
  int count = 0;
  for (std::int64_t step = 0; step < windows * CurvatureWatch::window; ++step)
    count += watch.see(normal(random));
  return count;
}

// A mean of one standard deviation is seven standard errors of a window above 0.
TEST(CurvatureWatch, KnowsALossThatBends) {
  EXPECT_EQ(warnings(1.0, 1.0, 100), 0);
  EXPECT_EQ(warnings(3e5, 1e5, 100), 0);
}

TEST(CurvatureWatch, NoticesRoundingOnce) {
  EXPECT_EQ(warnings(0.0, 1e9, 100), 1);
  EXPECT_EQ(warnings(1e5, 1e8, 100), 1);
  EXPECT_EQ(warnings(-1.0, 1.0, 1), 1);
}

TEST(CurvatureWatch, WaitsForAWindow) {
  CurvatureWatch watch;
  for (std::int64_t step = 1; step < CurvatureWatch::window; ++step) EXPECT_FALSE(watch.see(0.0)) << step;
  EXPECT_TRUE(watch.see(0.0));  // losses that do not move at all
  for (std::int64_t step = 0; step < 2 * CurvatureWatch::window; ++step) EXPECT_FALSE(watch.see(0.0));
}

}  // namespace
}  // namespace mezzo
