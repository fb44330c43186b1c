// Who is given up when: times are made up here, so that every case is exact.
#include "roll.h"

#include <gtest/gtest.h>

namespace mezzo {
namespace {

using namespace std::chrono_literals;

constexpr Patience patience{.silence = 10s, .work = 60s};
const Roll::Time start{1000s};

std::optional<Absence> absence(const Roll& roll, int rank, bool came, Roll::Time now, Seconds slack = 0s) {
  return roll.absence(rank, came, start, patience, slack, now);
}

TEST(Roll, NobodyIsGivenUpAtTheStart) {
  const Roll roll(3, start);
  for (int rank = 0; rank < 3; ++rank) EXPECT_FALSE(absence(roll, rank, false, start + 9s));
}

TEST(Roll, SilenceCountsFromTheLastSign) {
  Roll roll(3, start);
  roll.heard(1, {.arrived = 4, .phase = Phase::update, .step = 5}, start + 7s);
  roll.heard(2, start + 2s);
  EXPECT_FALSE(absence(roll, 1, false, start + 16s));
  const auto first = absence(roll, 0, false, start + 10s);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->rank, 0);
  EXPECT_FALSE(first->alive);
  EXPECT_EQ(first->waited, 10s);
  EXPECT_TRUE(absence(roll, 2, false, start + 12s));
  const auto later = absence(roll, 1, false, start + 18s);
  ASSERT_TRUE(later);
  EXPECT_EQ(later->waited, 11s);
  EXPECT_EQ(later->phase, Phase::update);
  EXPECT_EQ(later->step, 5u);
}

TEST(Roll, OneThatCameIsGivenUpForSilenceAlone) {
  Roll roll(1, start);
  roll.heard(0, start + 100s);
  EXPECT_FALSE(absence(roll, 0, true, start + 105s));
  EXPECT_TRUE(absence(roll, 0, true, start + 110s));
}

TEST(Roll, OneThatLivesIsGivenUpWhenItsWorkTakesTooLong) {
  Roll roll(1, start);
  roll.heard(0, {.arrived = 1, .phase = Phase::forward, .step = 3}, start + 58s);
  EXPECT_FALSE(absence(roll, 0, false, start + 59s));
  const auto stuck = absence(roll, 0, false, start + 60s);
  ASSERT_TRUE(stuck);
  EXPECT_TRUE(stuck->alive);
  EXPECT_EQ(stuck->waited, 60s);
}

TEST(Roll, SlackNamesThoseWhoFellSilentTogether) {
  Roll roll(2, start);
  roll.heard(1, start + 1s);
  EXPECT_FALSE(absence(roll, 1, false, start + 10s));
  EXPECT_TRUE(absence(roll, 1, false, start + 10s, 2s));
}

TEST(Roll, WhoSleptHimselfBlamesNobody) {
  Roll roll(2, start);
  roll.awoke(start + 50s);
  EXPECT_FALSE(absence(roll, 0, false, start + 59s));
  EXPECT_TRUE(absence(roll, 0, true, start + 60s));
}

}  // namespace
}  // namespace mezzo
