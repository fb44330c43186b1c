// Who is given up when: times are made up here, so that every case is exact.
#include "failure_detector.h"

#include <gtest/gtest.h>

namespace mezzo {
namespace {

using namespace std::chrono_literals;

constexpr Patience patience{.silence = 10s, .work = 60s};
const FailureDetector::Time start{1000s};

std::optional<Absence> absence(const FailureDetector& detector, int rank, bool came,
                               FailureDetector::Time now, Seconds slack = 0s) {
  return detector.absence(rank, came, start, patience, slack, now);
}

TEST(FailureDetector, NobodyIsGivenUpAtTheStart) {
  const FailureDetector detector(3, start);
  for (int rank = 0; rank < 3; ++rank) EXPECT_FALSE(absence(detector, rank, false, start + 9s));
}

TEST(FailureDetector, SilenceCountsFromTheLastHeartbeat) {
  FailureDetector detector(3, start);
  detector.heard(1, {.arrived = 4, .phase = Phase::update, .step = 5}, start + 7s);
  detector.heard(2, start + 2s);
  EXPECT_FALSE(absence(detector, 1, false, start + 16s));
  const auto first = absence(detector, 0, false, start + 10s);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->rank, 0);
  EXPECT_FALSE(first->alive);
  EXPECT_EQ(first->waited, 10s);
  EXPECT_TRUE(absence(detector, 2, false, start + 12s));
  const auto later = absence(detector, 1, false, start + 18s);
  ASSERT_TRUE(later);
  EXPECT_EQ(later->waited, 11s);
  EXPECT_EQ(later->phase, Phase::update);
  EXPECT_EQ(later->step, 5u);
}

TEST(FailureDetector, OneThatCameIsGivenUpForSilenceAlone) {
  FailureDetector detector(1, start);
  detector.heard(0, start + 100s);
  EXPECT_FALSE(absence(detector, 0, true, start + 105s));
  EXPECT_TRUE(absence(detector, 0, true, start + 110s));
}

TEST(FailureDetector, OneThatLivesIsGivenUpWhenItsWorkTakesTooLong) {
  FailureDetector detector(1, start);
  detector.heard(0, {.arrived = 1, .phase = Phase::forward, .step = 3}, start + 58s);
  EXPECT_FALSE(absence(detector, 0, false, start + 59s));
  const auto straggler = absence(detector, 0, false, start + 60s);
  ASSERT_TRUE(straggler);
  EXPECT_TRUE(straggler->alive);
  EXPECT_EQ(straggler->waited, 60s);
}

TEST(FailureDetector, SlackNamesThoseWhoFellSilentTogether) {
  FailureDetector detector(2, start);
  detector.heard(1, start + 1s);
  EXPECT_FALSE(absence(detector, 1, false, start + 10s));
  EXPECT_TRUE(absence(detector, 1, false, start + 10s, 2s));
}

TEST(FailureDetector, WhoSleptHimselfBlamesNobody) {
  FailureDetector detector(2, start);
  detector.awoke(start + 50s);
  EXPECT_FALSE(absence(detector, 0, false, start + 59s));
  EXPECT_TRUE(absence(detector, 0, true, start + 60s));
}

}  // namespace
}  // namespace mezzo
