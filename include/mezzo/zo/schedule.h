#pragma once
#include <cstdint>

#include "mezzo/core/config.h"

namespace mezzo {

/// Learning rate by step, as transformers' get_{constant,linear,cosine}_schedule(_with_warmup) define it:
/// step / warmup while step < warmup (so that step 0 of a warm-up has rate 0), then constant, down to 0
/// linearly, or down to 0 along half a cosine at max_steps.
struct Schedule {
  LrScheduler kind = LrScheduler::constant;
  double learning_rate = 0.0;
  std::int64_t warmup_steps = 0;
  std::int64_t max_steps = 0;

  /// Rounded to fp32 once; the trajectory stores those bits and replay uses them.
  float at(std::int64_t step) const;
  /// The sum over all steps of the square of the rate over its peak, to within a step; > 0.
  double squares() const;
};

/// The schedule that a config asks for.
Schedule configure_schedule(const Config& config);

}  // namespace mezzo
