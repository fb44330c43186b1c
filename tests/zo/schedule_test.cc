#include "mezzo/zo/schedule.h"

#include <gtest/gtest.h>

namespace mezzo {
namespace {

// Values of transformers' get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup (base rate
// 0.5).
TEST(Schedule, AsInTransformers) {
  const Schedule constant{
      .kind = LrScheduler::constant, .learning_rate = 0.5, .warmup_steps = 0, .max_steps = 10};
  EXPECT_EQ(constant.at(0), 0.5f);
  EXPECT_EQ(constant.at(9), 0.5f);
  const Schedule linear{
      .kind = LrScheduler::linear, .learning_rate = 0.5, .warmup_steps = 2, .max_steps = 10};
  const float expected_linear[] = {0.0f,  0.25f,   0.5f,   0.4375f, 0.375f, 0.3125f,
                                   0.25f, 0.1875f, 0.125f, 0.0625f, 0.0f};
  for (int step = 0; step <= 10; ++step) EXPECT_FLOAT_EQ(linear.at(step), expected_linear[step]) << step;
  const Schedule cosine{.kind = LrScheduler::cosine, .learning_rate = 0.5, .warmup_steps = 0, .max_steps = 4};
  const float expected_cosine[] = {0.5f, 0.42677669f, 0.25f, 0.073223304f, 0.0f};
  for (int step = 0; step <= 4; ++step) EXPECT_NEAR(cosine.at(step), expected_cosine[step], 1e-7f) << step;
}

TEST(Schedule, SquaresAreTheirSumToWithinAStep) {
  for (const LrScheduler kind : {LrScheduler::constant, LrScheduler::linear, LrScheduler::cosine}) {
    for (const std::int64_t steps : {1, 10, 1000}) {
      for (const std::int64_t warmup : {0, 7, 400}) {
        if (kind == LrScheduler::constant && warmup > 0) continue;
        if (warmup >= steps) continue;
        const Schedule schedule{
            .kind = kind, .learning_rate = 0.5, .warmup_steps = warmup, .max_steps = steps};
        double sum = 0.0;
        for (std::int64_t step = 0; step < steps; ++step) {
          const double share = static_cast<double>(schedule.at(step)) / 0.5;
          sum += share * share;
        }
        EXPECT_NEAR(schedule.squares(), sum, 1.0) << steps << " steps, " << warmup << " of warm-up";
        EXPECT_GT(schedule.squares(), 0.0);
      }
    }
  }
}

}  // namespace
}  // namespace mezzo
