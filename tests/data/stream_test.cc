#include "mezzo/data/stream.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>

#include "mezzo/core/error.h"
#include "scratch.h"

namespace mezzo {
namespace {

Example example_of(std::int32_t id) { return {.prompt = {id}, .options = {{1}}, .label = 0}; }

std::vector<Example> examples_from(std::int32_t first, std::int32_t count) {
  std::vector<Example> examples;
  for (std::int32_t i = 0; i < count; ++i) examples.push_back(example_of(first + i));
  return examples;
}

std::vector<std::int32_t> ids_of(std::span<const Example> examples) {
  std::vector<std::int32_t> ids;
  for (const Example& example : examples) ids.push_back(example.prompt[0]);
  return ids;
}

std::vector<std::int32_t> ids_at(const ExampleStream& stream, std::uint64_t first, std::int64_t count) {
  std::vector<std::int32_t> ids;
  for (const Example* example : stream.at(first, count)) ids.push_back(example->prompt[0]);
  return ids;
}

TEST(Stream, EachEpochIsAPermutationAndBatchesCrossEpochs) {
  const ExampleStream stream(examples_from(0, 7), 42, 0);
  std::vector<int> epochs[3];
  for (int i = 0; i < 21; ++i)
    epochs[i / 7].push_back(stream.at(static_cast<std::uint64_t>(i), 1)[0]->prompt[0]);
  for (auto& epoch : epochs) {
    std::vector<int> sorted = epoch;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, (std::vector<int>{0, 1, 2, 3, 4, 5, 6}));
  }
  EXPECT_NE(epochs[0], epochs[1]);
  const std::vector<const Example*> crossing = stream.at(5, 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(crossing[i]->prompt[0], epochs[(5 + i) / 7][(5 + i) % 7]);
}

TEST(Stream, LimitTakesTheFirstOfAShuffle) {
  const std::vector<Example> examples = examples_from(0, 100);
  const ExampleStream ten(examples, 42, 10);
  const ExampleStream twenty(examples, 42, 20);
  ASSERT_EQ(ten.size(), 10);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(ten.examples()[i].prompt, twenty.examples()[i].prompt);
  const ExampleStream other(examples, 43, 10);
  int same = 0;
  for (int i = 0; i < 10; ++i) same += ten.examples()[i].prompt == other.examples()[i].prompt;
  EXPECT_LT(same, 5);
}

// ---- several files --------------------------------------------------------------------------------------

std::vector<ExampleFile> two_files(double weight, std::int32_t first = 30, std::int32_t second = 50) {
  return {{.path = "a", .examples = examples_from(0, first), .weight = weight},
          {.path = "b", .examples = examples_from(1000, second), .weight = 1}};
}

TEST(Mixture, GivesEachFileItsPartOfABlockAndNumbersItsPositions) {
  const Mixture mixture({1, 2.5, 0.5}, 7);
  EXPECT_EQ(mixture.share(0), Mixture::block / 4);
  EXPECT_EQ(mixture.share(1), Mixture::block / 8 * 5);
  std::uint64_t seen[3] = {};
  std::size_t early[3] = {};
  for (std::uint64_t i = 0; i < 2 * Mixture::block; ++i) {
    const Mixture::Draw draw = mixture.at(i);
    ASSERT_EQ(draw.index, seen[draw.file]++) << i;
    if (i < 1000) ++early[draw.file];
  }
  EXPECT_THAT(seen, testing::ElementsAre(Mixture::block / 2, Mixture::block / 4 * 5, Mixture::block / 4));
  EXPECT_NEAR(static_cast<double>(early[1]), 625.0, 60.0);  // 4 standard deviations: mixed from the start
  // No state: any position first, the same answer.
  const Mixture again({1, 2.5, 0.5}, 7);
  for (const std::uint64_t i : {std::uint64_t{200'000}, std::uint64_t{3}, std::uint64_t{70'000}}) {
    EXPECT_EQ(again.at(i).file, mixture.at(i).file);
    EXPECT_EQ(again.at(i).index, mixture.at(i).index);
  }
}

TEST(Mixture, SharesAreRoundedByLargestRemaindersAndNeverToNothing) {
  const Mixture thirds({1, 1, 1}, 7);
  EXPECT_EQ(thirds.share(0), 21846u);  // 65536 / 3 = 21845 and one left
  EXPECT_EQ(thirds.share(1), 21845u);
  EXPECT_EQ(thirds.share(2), 21845u);
  const Mixture tiny({1e9, 1e-9, 1e-9}, 7);
  EXPECT_EQ(tiny.share(0), Mixture::block - 2);
  EXPECT_EQ(tiny.share(1), 1u);
}

// Frozen: another value is another run. The ids are from tests/goldens/mixed_stream.py.
TEST(Stream, MixedPositionsAreFrozen) {
  const ExampleStream stream(two_files(1), 42, 0);
  EXPECT_THAT(ids_at(stream, 0, 8), testing::ElementsAre(1035, 29, 1042, 1013, 21, 26, 8, 28));
  EXPECT_THAT(ids_at(stream, 1'000'000'000'000, 4), testing::ElementsAre(1048, 4, 1003, 1037));
}

TEST(Stream, EachFileIsSeenInEpochsOfItsOwn) {
  const ExampleStream stream(two_files(3), 42, 0);
  std::vector<std::int32_t> of_file[2];
  for (const std::int32_t id : ids_at(stream, 0, 1000)) of_file[id >= 1000].push_back(id);
  EXPECT_NEAR(static_cast<double>(of_file[0].size()), 750.0, 55.0);
  const auto epoch = [&](int file, std::ptrdiff_t size, std::ptrdiff_t number) {
    const auto first = of_file[file].begin() + number * size;
    return std::vector<std::int32_t>(first, first + size);
  };
  for (const auto& [file, size] : {std::pair(0, 30), std::pair(1, 50)}) {
    for (int number = 0; number < 3; ++number) {
      std::vector<std::int32_t> ids = epoch(file, size, number);
      std::ranges::sort(ids);
      EXPECT_EQ(ids, ids_of(examples_from(file * 1000, size))) << file << " " << number;
    }
    EXPECT_NE(epoch(file, size, 0), epoch(file, size, 1));
  }
  // Batches say the same whoever asks first.
  const ExampleStream other(two_files(3), 42, 0);
  EXPECT_EQ(ids_at(other, 500, 100), ids_at(stream, 500, 100));
  EXPECT_EQ(ids_at(other, 20, 10), ids_at(stream, 20, 10));
  EXPECT_NE(ids_at(ExampleStream(two_files(3), 43, 0), 0, 50), ids_at(stream, 0, 50));
  EXPECT_EQ(stream.shortest_epoch(), 30);
  const auto parts = stream.parts();
  EXPECT_EQ(parts[1].path, "b");
  EXPECT_EQ(parts[1].first, 30u);
  EXPECT_EQ(parts[1].count, 50u);
  EXPECT_EQ(parts[1].share, 0.25);
}

TEST(Stream, AListOfOneFileIsThatFile) {
  std::vector<ExampleFile> one = two_files(5);
  one.pop_back();
  EXPECT_EQ(ids_at(ExampleStream(one, 42, 20), 0, 60),
            ids_at(ExampleStream(examples_from(0, 30), 42, 20), 0, 60));
}

TEST(Stream, TheLimitIsOfAllFilesTogether) {
  const ExampleStream stream(two_files(1), 42, 16);
  EXPECT_EQ(stream.size(), 16);
  const std::vector<std::int32_t> ids = ids_of(stream.examples());
  EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), 16u);
  const auto parts = stream.parts();
  EXPECT_EQ(parts[0].count + parts[1].count, 16u);
  EXPECT_TRUE(std::all_of(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(parts[0].count),
                          [](std::int32_t id) { return id < 1000; }));
  EXPECT_EQ(test::message_of<UsageError>([&] { ExampleStream(two_files(1, 1, 5000), 42, 10); }),
            "data.train: a is left without an example (10 are kept of all files)");
}

TEST(HoldOut, TakesAFractionByAShuffleOfTheSeed) {
  std::vector<ExampleFile> files = two_files(1);
  const std::vector<std::int32_t> held_out = ids_of(hold_out(files, 0.25, 42));
  EXPECT_EQ(held_out.size(), 20u);
  std::vector<std::int32_t> all = held_out;
  for (const ExampleFile& file : files) {
    const std::vector<std::int32_t> rest = ids_of(file.examples);
    EXPECT_TRUE(std::ranges::is_sorted(rest));  // as they stood
    all.insert(all.end(), rest.begin(), rest.end());
  }
  EXPECT_EQ(std::set(all.begin(), all.end()).size(), 80u);
  EXPECT_EQ(all.size(), 80u);
  EXPECT_TRUE(std::ranges::is_sorted(held_out));
  EXPECT_LT(held_out.front(), 1000);
  EXPECT_GE(held_out.back(), 1000);
  std::vector<ExampleFile> again = two_files(1);
  EXPECT_EQ(ids_of(hold_out(again, 0.25, 42)), held_out);
  std::vector<ExampleFile> other = two_files(1);
  EXPECT_NE(ids_of(hold_out(other, 0.25, 43)), held_out);
  // One at least, and not all.
  std::vector<ExampleFile> few = {{.path = "a", .examples = examples_from(0, 3)}};
  EXPECT_EQ(hold_out(few, 0.01, 1).size(), 1u);
  EXPECT_EQ(hold_out(few, 0.99, 1).size(), 1u);
  EXPECT_EQ(test::message_of<UsageError>([&] { hold_out(few, 0.5, 1); }),
            "data.validation_fraction: found 1 training examples, expected two at least");
}

}  // namespace
}  // namespace mezzo
