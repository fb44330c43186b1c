#include "mezzo/zo/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mezzo {

float Schedule::at(std::int64_t step) const {
  double factor = 1.0;
  if (kind != LrScheduler::constant) {
    if (step < warmup_steps) {
      factor = static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, warmup_steps));
    } else {
      const double progress = static_cast<double>(step - warmup_steps) /
                              static_cast<double>(std::max<std::int64_t>(1, max_steps - warmup_steps));
      factor = kind == LrScheduler::linear
                   ? std::max(0.0, 1.0 - progress)
                   : std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
    }
  }
  return static_cast<float>(learning_rate * factor);
}

double Schedule::squares() const {
  const auto steps = static_cast<double>(std::max<std::int64_t>(1, max_steps));
  if (kind == LrScheduler::constant) return steps;
  const double rising = std::min(static_cast<double>(warmup_steps), steps);
  const double falling = kind == LrScheduler::linear ? 1.0 / 3.0 : 3.0 / 8.0;
  return rising / 3.0 + (steps - rising) * falling + 0.5;
}

Schedule configure_schedule(const Config& config) {
  return {.kind = config.optimizer.lr_scheduler_type,
          .learning_rate = config.optimizer.learning_rate,
          .warmup_steps = config.optimizer.warmup_steps,
          .max_steps = config.train.max_steps};
}

}  // namespace mezzo
