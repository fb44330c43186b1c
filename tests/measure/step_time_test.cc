#include "mezzo/measure/step_time.h"

#include <gtest/gtest.h>

namespace mezzo {
namespace {

/// Numbers that are exact in binary.
StepParts parts() {
  return {.tokens = 64,
          .begin = 0.5,
          .forwards = {{.probes = 1, .seconds = 2.0},
                       {.probes = 2, .seconds = 3.0},
                       {.probes = 4, .seconds = 7.0}},
          .update = 0.25,
          .hash = 0.0,
          .host = 0.0};
}

TEST(StepParts, ForwardsAreInterpolated) {
  EXPECT_EQ(parts().forward_seconds(1, 64), 2.0);
  EXPECT_EQ(parts().forward_seconds(2, 64), 3.0);
  EXPECT_EQ(parts().forward_seconds(3, 64), 5.0);
  EXPECT_EQ(parts().forward_seconds(4, 64), 7.0);
  EXPECT_EQ(parts().forward_seconds(6, 64), 11.0);  // beyond: on as between the last two
}

TEST(StepParts, SlicesOfOtherLengthCountByRows) {
  EXPECT_EQ(parts().forward_seconds(2, 32), 2.0);   // as many rows as one probe of 64 tokens
  EXPECT_EQ(parts().forward_seconds(2, 128), 7.0);  // as four
  EXPECT_EQ(parts().forward_seconds(1, 32), 1.5);   // half of one probe: as between the first two
  EXPECT_EQ(parts().begin_seconds(32), 0.25);
}

TEST(StepParts, AForwardCostsNoLessThanItsShareOfALargerOne) {
  StepParts steep = parts();
  steep.forwards[0].seconds = 1.0;
  steep.forwards[1].seconds = 2.5;  // more than twice: the line would end below zero
  EXPECT_EQ(steep.forward_seconds(1, 32), 0.5);
  EXPECT_EQ(steep.forward_seconds(1, 16), 0.25);
  StepParts single = parts();
  single.forwards.resize(1);
  EXPECT_EQ(single.forward_seconds(3, 64), 6.0);
}

TEST(StepParts, ARankBeginsASliceOnce) {
  const StepUnits units{.probes = 4, .slice_tokens = {64, 128}, .paired = true};
  EXPECT_EQ(parts().work_seconds(units, {}), 0.0);
  const WorkItem items[] = {{.slice = 0, .first_probe = 0, .probes = 2},
                            {.slice = 0, .first_probe = 2, .probes = 2},
                            {.slice = 1, .first_probe = 0, .probes = 1}};
  EXPECT_EQ(parts().work_seconds(units, items), (0.5 + 3.0 + 3.0) + (1.0 + 3.0));
}

TEST(ExchangeTime, GrowsWithRanksAndWords) {
  const ExchangeTime time{.fixed = 1.0, .per_rank = 0.5, .per_rank_word = 0.25};
  EXPECT_EQ(time.seconds(1, 100), 0.0);  // there is nobody to exchange with
  EXPECT_EQ(time.seconds(2, 0), 1.5);
  EXPECT_EQ(time.seconds(3, 4), 1.0 + 2 * (0.5 + 1.0));
}

}  // namespace
}  // namespace mezzo
