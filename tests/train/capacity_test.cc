#include "mezzo/train/capacity.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::size_t gib = std::size_t{1} << 30;

std::string refusal(const std::function<void()>& check) {
  try {
    check();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

std::string step_refusal(const Config& config, std::size_t memory) {
  return refusal([&] { check_step_fits(config, 12.0, memory); });
}

/// The number behind `before` in a text.
std::int64_t number_behind(const std::string& text, const std::string& before) {
  const std::size_t at = text.find(before);
  return at == std::string::npos ? 0 : std::stoll(text.substr(at + before.size()));
}

TEST(Capacity, OrdinaryStepsFit) {
  Config config;
  config.zo.directions = 1000;
  config.train.batch_size = 256;
  EXPECT_EQ(step_refusal(config, gib), "");
  config.zo.estimator = EstimatorKind::one_sided;
  EXPECT_EQ(step_refusal(config, gib), "");
}

TEST(Capacity, NamesTheKeyItsValueAndTheLargestThatCan) {
  struct Case {
    const char* key;
    std::int64_t& (*value)(Config&);
  };
  const Case cases[] = {{"zo.directions", [](Config& c) -> std::int64_t& { return c.zo.directions; }},
                        {"train.batch_size", [](Config& c) -> std::int64_t& { return c.train.batch_size; }},
                        {"train.gradient_accumulation_steps",
                         [](Config& c) -> std::int64_t& { return c.train.gradient_accumulation_steps; }}};
  for (const Case& one : cases) {
    Config config;
    one.value(config) = 1'000'000'000;
    const std::string text = step_refusal(config, 8 * gib);
    EXPECT_TRUE(text.starts_with(std::string(one.key) + ": found 1000000000: ")) << text;
    const std::int64_t largest = number_behind(text, "the largest that can be listed is ");
    ASSERT_GT(largest, 1000) << text;
    one.value(config) = largest;
    EXPECT_EQ(step_refusal(config, 8 * gib), "") << one.key << " " << largest;
    one.value(config) = largest + 1;
    EXPECT_NE(step_refusal(config, 8 * gib), "") << one.key << " " << largest;
  }
}

TEST(Capacity, ASliceHasPlacesOf32Bits) {
  Config config;
  config.train.batch_size = 1'000'000'000;
  const std::string text = step_refusal(config, std::size_t{1} << 50);
  EXPECT_NE(
      text.find("a slice would have 1.2e+10 tokens, but 2147483647 is the most; the largest that can be "
                "listed is 178956970"),
      std::string::npos)
      << text;
  config.train.batch_slices = 10;
  EXPECT_EQ(step_refusal(config, std::size_t{1} << 50), "");
}

TEST(Capacity, ProductsThatOverflowAreRefused) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  Config config;
  config.zo.directions = most;
  config.train.batch_size = most;
  config.train.batch_slices = most;
  config.train.gradient_accumulation_steps = most;
  EXPECT_TRUE(step_refusal(config, std::size_t{1} << 50).starts_with("zo.directions, train.batch_size, "));
}

TEST(Capacity, OfTheTrainables) {
  const auto text = [](std::int64_t r, std::size_t memory, std::int64_t kept = 0) {
    const TrainableSpec specs[] = {{"a", r, 128}, {"b", 128, r}};
    return refusal([&] { check_trainables_fit(specs, kept, r, memory); });
  };
  EXPECT_EQ(text(1024, gib), "");
  const std::string refused = text(100'000'000, gib);
  EXPECT_TRUE(refused.starts_with(
      "lora.r: found 100000000: 2.56e+10 trainable numbers would take 190.7 GiB, but 1 GiB"))
      << refused;
  const std::int64_t largest = number_behind(refused, "the largest that fits is ");
  EXPECT_EQ(text(largest, gib), "");
  EXPECT_NE(text(largest + 1, gib), "");
  // What an optimizer keeps counts: as many numbers once more, and half the rank fits.
  EXPECT_NE(text(largest, gib, 256 * largest).find("and those that the optimizer keeps"), std::string::npos);
  EXPECT_EQ(text(largest / 2, gib, 256 * (largest / 2)), "");
  // No rank is named where none would fit.
  const TrainableSpec specs[] = {{"a", 8, 128}, {"b", 128, 8}};
  EXPECT_THROW(check_trainables_fit(specs, 0, 8, 0), DeviceError);
}

}  // namespace
}  // namespace mezzo
