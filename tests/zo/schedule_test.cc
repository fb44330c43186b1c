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

}  // namespace
}  // namespace mezzo
