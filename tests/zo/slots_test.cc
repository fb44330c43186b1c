#include "mezzo/zo/slots.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

const std::vector<Probe> probes = {{.seed = 5, .direction = 0, .epsilon = 1e-2f},
                                   {.seed = 6, .direction = 1, .epsilon = -1e-2f}};

/// What an exchange does: words of two ranks under an integer sum.
void add(SlotTable& mine, SlotTable& other) {
  for (std::size_t i = 0; i < mine.words().size(); ++i) mine.words()[i] += other.words()[i];
}

TEST(Slots, SumsKeepEveryBitAndAddSlicesInOrder) {
  SlotTable a(2, 3, 2);
  SlotTable b(2, 3, 2);
  // 1 + 1e-16 + -1 depends on the order of the additions.
  a.set(0, 0, 5, 1.0, 1.0);
  b.set(0, 1, 5, 1e-16, 1.0);
  a.set(0, 2, 5, -1.0, 1.0);
  b.set(1, 0, 6, -0.0, 2.0);
  b.set(1, 1, 6, std::numeric_limits<double>::infinity(), 2.0);
  a.set(1, 2, 6, 0.5, 2.0);
  add(a, b);
  const std::vector<ProbeLoss> losses = a.losses(probes, 0);
  EXPECT_EQ(losses[0].sum, 1.0 + 1e-16 + -1.0);
  EXPECT_EQ(losses[0].weight, 3.0);
  ASSERT_EQ(losses[0].slices.size(), 3u);
  EXPECT_EQ(losses[0].slices[1].sum, 1e-16);
  EXPECT_EQ(losses[1].slices[2].weight, 2.0);
  EXPECT_TRUE(losses[0].good);
  EXPECT_FALSE(losses[1].good);
  EXPECT_FALSE(a.stop_requested());
}

TEST(Slots, MissingSlotIsNamed) {
  SlotTable table(2, 1, 1);
  table.set(0, 0, 5, 1.0, 1.0);
  try {
    table.losses(probes, 7);
    FAIL();
  } catch (const CommError& error) {
    EXPECT_NE(std::string(error.what()).find("step 7: no rank evaluated probe 1, slice 0"), std::string::npos)
        << error.what();
  }
}

TEST(Slots, WrongSeedAndTwoWritersAreErrors) {
  SlotTable table(2, 1, 1);
  table.set(0, 0, 5, 1.0, 1.0);
  table.set(1, 0, 99, 1.0, 1.0);
  EXPECT_THROW(table.losses(probes, 0), CommError);
  SlotTable twice(2, 1, 2);
  twice.set(0, 0, 5, 1.0, 1.0);
  twice.set(1, 0, 6, 1.0, 1.0);
  SlotTable copy = twice;
  add(twice, copy);
  EXPECT_THROW(twice.losses(probes, 0), CommError);
}

TEST(Slots, ControlWords) {
  SlotTable a(1, 1, 3);
  SlotTable b(1, 1, 3);
  a.set_hash(0, 17);
  b.set_hash(1, 17);
  b.set_hash(2, 18);
  b.set_stop(1);
  a.set_work_seconds(0, 0.125);
  b.set_work_seconds(2, 3e-7);
  add(a, b);
  EXPECT_TRUE(a.stop_requested());
  EXPECT_EQ(a.work_seconds(), (std::vector<double>{0.125, 0.0, 3e-7}));
  try {
    a.check_hashes(3);
    FAIL();
  } catch (const CommError& error) {
    EXPECT_NE(std::string(error.what()).find("rank 2"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mezzo
