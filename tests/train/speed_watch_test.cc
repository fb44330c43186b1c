#include "mezzo/train/speed_watch.h"

#include <gtest/gtest.h>

namespace mezzo {
namespace {

using Doubles = std::vector<double>;
using Loads = std::vector<std::int64_t>;

/// What the watch says in the last of `steps` equal steps; in those before, it must say nothing.
std::optional<SpeedWatch::SlowRank> after(SpeedWatch& watch, std::size_t steps, const Doubles& seconds,
                                          const Loads& loads) {
  for (std::size_t step = 1; step < steps; ++step) EXPECT_FALSE(watch.see(seconds, loads)) << step;
  return watch.see(seconds, loads);
}

TEST(SpeedWatch, NamesTheSlowestRankOnce) {
  SpeedWatch watch;
  const auto slow = after(watch, SpeedWatch::window, {1.0, 1.1, 2.5, 0.9, 2.0}, {8, 8, 8, 8, 8});
  ASSERT_TRUE(slow);
  EXPECT_EQ(slow->rank, 2);
  EXPECT_DOUBLE_EQ(slow->factor, 2.5 / 1.1);
  EXPECT_FALSE(after(watch, 3 * SpeedWatch::window, {1.0, 1.1, 2.5, 0.9, 2.0}, {8, 8, 8, 8, 8}));
}

TEST(SpeedWatch, TheFasterOfTwoIsTheYardstick) {
  SpeedWatch watch;
  const auto slow = after(watch, SpeedWatch::window, {2.0, 1.0}, {3, 3});
  ASSERT_TRUE(slow);
  EXPECT_EQ(slow->rank, 0);
  EXPECT_DOUBLE_EQ(slow->factor, 2.0);
}

TEST(SpeedWatch, OtherSharesAreNoOtherSpeeds) {
  // Twice the work in twice the time; half the work in 0.7 of the time, because small forwards are slower.
  SpeedWatch larger;
  EXPECT_FALSE(after(larger, 3 * SpeedWatch::window, {1.0, 2.0, 1.0}, {4, 8, 4}));
  SpeedWatch smaller;
  EXPECT_FALSE(after(smaller, 3 * SpeedWatch::window, {1.0, 0.7, 1.0}, {4, 2, 4}));
  // Half the work in more time than the others: slow.
  SpeedWatch slow;
  const auto found = after(slow, SpeedWatch::window, {1.0, 1.75, 1.0}, {4, 2, 4});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->rank, 1);
  EXPECT_DOUBLE_EQ(found->factor, 1.75);
}

TEST(SpeedWatch, APauseMakesNoSlowRank) {
  SpeedWatch watch;
  for (std::size_t step = 0; step < 3 * SpeedWatch::window; ++step) {
    const double seconds = step % 3 == 0 ? 100.0 : 1.0;
    EXPECT_FALSE(watch.see(Doubles{1.0, seconds, 1.0}, Loads{4, 4, 4})) << step;
  }
}

TEST(SpeedWatch, RanksWithoutWorkAreNoYardstick) {
  SpeedWatch watch;
  EXPECT_FALSE(after(watch, 3 * SpeedWatch::window, {1.0, 1.0, 1e-6, 1e-6, 1e-6}, {4, 4, 0, 0, 0}));
  SpeedWatch alone;
  EXPECT_FALSE(after(alone, 3 * SpeedWatch::window, {1.0}, {4}));
}

}  // namespace
}  // namespace mezzo
