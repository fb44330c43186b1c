#pragma once
// Looks for a learning rate: some steps of a config over exponentially rising rates, and what their losses
// say.
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/core/config.h"
#include "mezzo/core/log.h"
#include "mezzo/core/stop_signal.h"

namespace mezzo {

/// Rates from `lowest` to `highest`, in equal ratios.
struct RateRange {
  double lowest = 1e-6;
  double highest = 1.0;
  std::int64_t steps = 90;  ///< at least rate_window

  double at(std::int64_t step) const;
};

/// A step of the trial: the loss at the trainables that the smaller rates before it have led to.
struct RateStep {
  double learning_rate = 0.0;
  double loss = 0.0;  ///< NaN when no direction had a finite one
};

struct RateTrial {
  std::vector<RateStep> steps;  ///< ends early where the loss has exploded
  bool stopped = false;         ///< a rank was asked to stop
};
/// Takes the steps on all ranks, from the config's initial trainables on the batches and directions that its
/// run has; the same on any number of ranks. Nothing is written. Errors that all ranks share are JobFailed.
RateTrial try_rates(const Config& config, const RateRange& range, Exchange& exchange, const StopSignal& stop,
                    Logger& log);

/// Losses are smoothed by means over so many neighbouring steps.
inline constexpr std::int64_t rate_window = 5;

struct RateAdvice {
  std::vector<double> smoothed;       ///< a loss for each step; infinite from one that is not finite on
  std::optional<double> diverges_at;  ///< a rate; the two others are there with it
  std::optional<double> least_at;
  std::optional<double> recommended;  ///< a tenth of least_at, to two digits
};
/// The smoothed loss diverges at the first step from which on it stays above the least before that step, by
/// more than its noise (six standard errors of a mean, as the first third of the steps shows them) and more
/// than a tenth. It is least at the last step before that where it is within two standard errors of the
/// least. A pure function of the steps.
RateAdvice advise(std::span<const RateStep> steps);

}  // namespace mezzo
