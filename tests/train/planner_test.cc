#include "mezzo/train/planner.h"

#include <gtest/gtest.h>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

std::size_t linear(std::int64_t group) { return 10 + 100 * static_cast<std::size_t>(group); }

GroupLimits limits(std::int64_t probes, std::int64_t slices, std::int64_t ranks, std::size_t memory) {
  return {.probes = probes, .slices = slices, .ranks = ranks, .memory = memory, .paired = true};
}

TEST(Planner, GivesEveryRankWork) {
  EXPECT_EQ(choose_group(limits(16, 1, 1, 1 << 20), linear), 16);
  EXPECT_EQ(choose_group(limits(16, 1, 2, 1 << 20), linear), 8);
  EXPECT_EQ(choose_group(limits(16, 1, 5, 1 << 20), linear), 4);
  EXPECT_EQ(choose_group(limits(16, 4, 2, 1 << 20), linear), 16);  // slices are work too
  EXPECT_EQ(choose_group(limits(2, 1, 8, 1 << 20), linear), 1);
}

TEST(Planner, FitsAndBalances) {
  EXPECT_EQ(choose_group(limits(16, 1, 1, 1500), linear), 8);  // 14 fit: two groups of 8, not 14 and 2
  EXPECT_EQ(choose_group(limits(16, 1, 1, 110), linear), 1);
  EXPECT_THROW(choose_group(limits(16, 1, 1, 109), linear), DeviceError);
}

TEST(Planner, SharesAreConsecutiveAndWhole) {
  for (const std::int64_t items : {0, 1, 5, 16}) {
    for (const int ranks : {1, 2, 3, 7}) {
      std::int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const WorkShare share = share_of(items, rank, ranks);
        EXPECT_EQ(share.first, next);
        EXPECT_LE(share.count, (items + ranks - 1) / ranks);
        next += share.count;
      }
      EXPECT_EQ(next, items);
    }
  }
}

}  // namespace
}  // namespace mezzo
