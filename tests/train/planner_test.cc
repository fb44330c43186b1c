#include "mezzo/train/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

std::size_t linear(std::int64_t group) { return 10 + 100 * static_cast<std::size_t>(group); }

GroupLimits limits(std::int64_t share, std::size_t memory) {
  return {.probes = 40, .share = share, .memory = memory, .paired = true};
}

TEST(Planner, AShareThatFitsIsOneForward) {
  for (const std::int64_t share : {1, 2, 3, 8, 13, 40}) {
    EXPECT_EQ(choose_group(limits(share, 1 << 20), linear), share);  // 3: not 2 and 1
  }
}

TEST(Planner, FitsAndBalances) {
  EXPECT_EQ(choose_group(limits(16, 1500), linear), 8);   // 14 fit: two groups of 8, not 14 and 2
  EXPECT_EQ(choose_group(limits(18, 1300), linear), 10);  // 12 fit: 10 and 8, in pairs, not 9 and 9
  EXPECT_EQ(choose_group(limits(18, 910), linear), 9);    // 9 fit: three forwards would be more
  EXPECT_EQ(choose_group(limits(16, 110), linear), 1);
  EXPECT_THROW(choose_group(limits(16, 109), linear), DeviceError);
}

using Ends = std::vector<std::int64_t>;

/// Ends of the shares, checked to be consecutive from 0 on.
Ends ends_of(const StepUnits& units, int ranks) {
  Ends ends;
  std::int64_t next = 0;
  for (const WorkShare& share : share_out(units, ranks)) {
    EXPECT_EQ(share.first, next);
    next += share.count;
    ends.push_back(next);
  }
  return ends;
}

std::int64_t largest_load(const StepUnits& units, int ranks) {
  std::int64_t largest = 0;
  for (const WorkShare& share : share_out(units, ranks)) largest = std::max(largest, load_of(units, share));
  return largest;
}

TEST(Shares, AreAsEvenAsUnitsCanBe) {
  const StepUnits eight{.probes = 8, .slice_tokens = {5}, .paired = true};
  EXPECT_EQ(ends_of(eight, 1), (Ends{8}));
  EXPECT_EQ(ends_of(eight, 2), (Ends{4, 8}));
  EXPECT_EQ(ends_of(eight, 3), (Ends{2, 5, 8}));  // 3 is the least; the first ends with a pair
  EXPECT_EQ(ends_of(eight, 4), (Ends{2, 4, 6, 8}));
  EXPECT_EQ(ends_of(eight, 5), (Ends{2, 4, 6, 7, 8}));
  EXPECT_EQ(ends_of(eight, 7), (Ends{2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(ends_of(eight, 8), (Ends{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(ends_of(eight, 9), (Ends{1, 2, 3, 4, 5, 6, 7, 8, 8}));  // one idle, and only now
  const StepUnits seven{.probes = 7, .slice_tokens = {5}, .paired = false};
  EXPECT_EQ(ends_of(seven, 2), (Ends{3, 7}));
  EXPECT_EQ(ends_of(seven, 3), (Ends{2, 5, 7}));
  EXPECT_EQ(ends_of(seven, 6), (Ends{1, 2, 3, 5, 6, 7}));
}

// 40 probes in groups of 3 are 14 groups: two of 16 ranks would have none. In units the largest share is the
// same 3 and nobody is idle.
TEST(Shares, FortyProbesOnSixteenRanks) {
  const StepUnits forty{.probes = 40, .slice_tokens = {1000}, .paired = true};
  EXPECT_EQ(ends_of(forty, 16), (Ends{2, 4, 6, 8, 10, 12, 14, 16, 19, 22, 25, 28, 31, 34, 37, 40}));
}

TEST(Shares, SlicesServeWhereRanksOutnumberProbes) {
  const StepUnits units{.probes = 2, .slice_tokens = {7, 7, 7}, .paired = true};
  EXPECT_EQ(ends_of(units, 3), (Ends{2, 4, 6}));  // a slice each, rather than a slice and a half
  EXPECT_EQ(ends_of(units, 4), (Ends{2, 4, 5, 6}));
  EXPECT_EQ(ends_of(units, 6), (Ends{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(ends_of(units, 9), (Ends{1, 2, 3, 4, 5, 6, 6, 6, 6}));
}

TEST(Shares, LoadsAreTokens) {
  const StepUnits units{.probes = 2, .slice_tokens = {10, 30, 20}, .paired = true};  // 10 10 30 30 20 20
  EXPECT_EQ(ends_of(units, 2), (Ends{3, 6}));     // 50 and 70, not 80 and 40
  EXPECT_EQ(ends_of(units, 3), (Ends{3, 4, 6}));  // 50, 30 and 40, not a slice each: 20, 60 and 40
  EXPECT_EQ(largest_load(units, 4), 40);          // 20, 30, 30, 40
}

/// The least possible largest load of `parts` parts, none empty, by trying every place of the first cut.
std::int64_t least_largest(std::span<const std::int64_t> loads, std::size_t parts) {
  if (parts == 1) return std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  std::int64_t first = 0;
  for (std::size_t end = 1; end + parts - 1 <= loads.size(); ++end) {
    first += loads[end - 1];
    least = std::min(least, std::max(first, least_largest(loads.subspan(end), parts - 1)));
  }
  return least;
}

TEST(Shares, TheLargestLoadIsTheLeastPossible) {
  for (const Ends& tokens : {Ends{3}, Ends{1, 1}, Ends{1, 9}, Ends{9, 1}, Ends{5, 7, 6}, Ends{1, 100, 2}}) {
    for (const std::int64_t probes : {1, 2, 3, 4, 5}) {
      const StepUnits units{.probes = probes, .slice_tokens = tokens, .paired = probes % 2 == 0};
      Ends loads;
      for (std::int64_t unit = 0; unit < units.count(); ++unit)
        loads.push_back(tokens[static_cast<std::size_t>(unit / probes)]);
      for (int ranks = 1; ranks <= 9; ++ranks) {
        const auto working = std::min(static_cast<std::size_t>(ranks), loads.size());
        SCOPED_TRACE(testing::Message() << probes << " probes, " << tokens.size() << " slices of "
                                        << tokens[0] << "..., " << ranks << " ranks");
        EXPECT_EQ(largest_load(units, ranks), least_largest(loads, working));
        const std::vector<WorkShare> shares = share_out(units, ranks);
        EXPECT_EQ(std::ranges::count_if(shares, [](const WorkShare& share) { return share.count > 0; }),
                  static_cast<std::ptrdiff_t>(working));
        EXPECT_EQ(ends_of(units, ranks).back(), units.count());
      }
    }
  }
}

TEST(Shares, ThousandsOfRanks) {
  const StepUnits units{.probes = 40, .slice_tokens = Ends(64, 1 << 12), .paired = true};
  EXPECT_EQ(largest_load(units, 1024), 3 << 12);  // 2560 units
  EXPECT_EQ(largest_load(units, 2560), 1 << 12);
  EXPECT_EQ(largest_load(units, 4096), 1 << 12);
}

/// An example of `tokens` tokens.
Example example_of(std::size_t tokens) {
  return {.prompt = std::vector<std::int32_t>(tokens, 5), .options = {{1}, {2}}, .label = 0};
}

TEST(Shares, TheLargestOfARunIsFoundBeforeIt) {
  TrainConfig config;
  config.batch_size = 2;
  config.batch_slices = 2;
  config.gradient_accumulation_steps = 1;
  config.max_steps = 5;
  const auto share = [&](std::vector<Example> examples, std::int64_t probes, int ranks) {
    const ExampleStream stream(std::move(examples), 1, 0);
    return largest_share(config, stream, *make_likelihood(TaskLoss::options), probes, true, ranks);
  };
  // Slices alike: 8 probes of each of two.
  EXPECT_EQ(share({example_of(10), example_of(10)}, 8, 1), 8);
  EXPECT_EQ(share({example_of(10), example_of(10)}, 8, 2), 8);
  EXPECT_EQ(share({example_of(10), example_of(10)}, 8, 4), 4);
  EXPECT_EQ(share({example_of(10), example_of(10)}, 8, 6), 3);
  EXPECT_EQ(share({example_of(10), example_of(10)}, 8, 100), 1);
  // One three times as long: 4 of the short one's units are not more than 2 of the long one's.
  EXPECT_EQ(share({example_of(10), example_of(30)}, 4, 3), 4);
  EXPECT_EQ(share({example_of(10), example_of(10)}, 4, 3), 3);
}

// A sequence of which every row is read, and a shorter one with a row that is not, in short runs and in long
// ones.
TEST(LargestSlice, TellsOfRowsThatAreNotRead) {
  const Example all_read{.prompt = {5}, .options = {{1, 2, 3, 4}}, .label = 0};
  const Example not_all{.prompt = {5, 5}, .options = {{1, 2}}, .label = 0};
  TrainConfig config;
  config.batch_size = 1;
  for (const std::int64_t steps : {5, 5'000'000}) {
    config.max_steps = steps;
    const auto largest = [&](std::vector<Example> examples) {
      return largest_slice(config, ExampleStream(std::move(examples), 1, 0),
                           *make_likelihood(TaskLoss::language_model));
    };
    for (const bool mixed : {false, true}) {
      const BatchShape shape = largest({all_read, mixed ? not_all : all_read});
      EXPECT_EQ(shape.tokens, 4);
      EXPECT_EQ(shape.loss_rows, 4);
      EXPECT_EQ(shape.has_rows_without_loss(), mixed) << steps << " steps";
    }
  }
}

TEST(LargestSlice, OfALongRunIsEnoughForEachOfItsSlices) {
  // Slices cross epochs, and then hold an example twice.
  for (std::size_t examples = 1; examples <= 5; ++examples) {
    for (std::int64_t batch = 1; batch <= 7; ++batch) {
      std::vector<Example> all;
      for (std::size_t i = 0; i < examples; ++i) all.push_back(example_of(i == 0 ? 40 : 3 + i));
      const ExampleStream stream(std::move(all), 1, 0);
      TrainConfig config;
      config.batch_size = batch;
      config.max_steps = 500;
      const BatchShape seen = largest_slice(config, stream, *make_likelihood(TaskLoss::options));
      config.max_steps = 5'000'000;
      const BatchShape bound = largest_slice(config, stream, *make_likelihood(TaskLoss::options));
      EXPECT_GE(bound.tokens, seen.tokens) << examples << " examples, slices of " << batch;
      EXPECT_GE(bound.targets, seen.targets);
    }
  }
}

TEST(LargestSlice, AVeryLongRunIsNotWalkedThrough) {
  const ExampleStream stream({example_of(3)}, 1, 0);
  TrainConfig config;
  config.max_steps = std::int64_t{1} << 49;
  config.batch_size = std::int64_t{1} << 15;  // the product of both is 0 in 64 bits
  EXPECT_EQ(largest_slice(config, stream, *make_likelihood(TaskLoss::options)).sequences, 1 << 15);
}

TEST(Shares, UnitsAreTokens) {
  const Example a = example_of(10);
  Example b = example_of(4);
  b.options = {{1, 2}, {2}};  // 5 tokens of the first option's sequence; the second reads the same
  const Slices slices = {{&a, &b}, {&b}};
  const StepUnits units = units_of(*make_likelihood(TaskLoss::options), slices, 6, true);
  EXPECT_EQ(units.slice_tokens, (Ends{15, 5}));
  EXPECT_EQ(units.count(), 12);
}

/// (slice, first probe, probes) of each forward.
using Items = std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>;
Items items(const StepUnits& units, WorkShare share, std::int64_t group) {
  Items items;
  for (const WorkItem& item : items_of(units, share, group))
    items.emplace_back(item.slice, item.first_probe, item.probes);
  return items;
}

TEST(WorkItems, AreFewEvenAndInPairs) {
  const StepUnits units{.probes = 10, .slice_tokens = {3, 4}, .paired = true};
  EXPECT_EQ(items(units, {0, 20}, 10), (Items{{0, 0, 10}, {1, 0, 10}}));
  EXPECT_EQ(items(units, {0, 20}, 100), (Items{{0, 0, 10}, {1, 0, 10}}));
  EXPECT_EQ(items(units, {0, 10}, 6), (Items{{0, 0, 4}, {0, 4, 6}}));
  EXPECT_EQ(items(units, {0, 10}, 5), (Items{{0, 0, 5}, {0, 5, 5}}));  // pairs would take a third forward
  EXPECT_EQ(items(units, {0, 10}, 4), (Items{{0, 0, 4}, {0, 4, 2}, {0, 6, 4}}));
  EXPECT_EQ(items(units, {7, 6}, 4), (Items{{0, 7, 3}, {1, 0, 3}}));   // cut where the slice ends
  EXPECT_EQ(items(units, {11, 7}, 4), (Items{{1, 1, 3}, {1, 4, 4}}));  // begins with half a pair
  EXPECT_EQ(items(units, {20, 0}, 4), Items{});
  const StepUnits one_sided{.probes = 9, .slice_tokens = {3}, .paired = false};
  EXPECT_EQ(items(one_sided, {0, 9}, 4), (Items{{0, 0, 3}, {0, 3, 3}, {0, 6, 3}}));
}

TEST(WorkItems, CoverEveryShareWithoutLargerGroups) {
  for (const std::int64_t probes : {1, 2, 7, 12}) {
    const StepUnits units{.probes = probes, .slice_tokens = {5, 2, 9}, .paired = probes % 2 == 0};
    for (const std::int64_t group : {1, 2, 3, 5, 12}) {
      for (int ranks = 1; ranks <= 9; ++ranks) {
        std::int64_t next = 0;
        for (const WorkShare& share : share_out(units, ranks)) {
          for (const WorkItem& item : items_of(units, share, group)) {
            EXPECT_EQ(item.slice * probes + item.first_probe, next);
            EXPECT_GE(item.probes, 1);
            EXPECT_LE(item.probes, group);
            next += item.probes;
          }
        }
        EXPECT_EQ(next, units.count());
      }
    }
  }
}

}  // namespace
}  // namespace mezzo
