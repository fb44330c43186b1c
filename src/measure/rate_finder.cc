#include "mezzo/measure/rate_finder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "mezzo/train/planner.h"
#include "mezzo/train/setup.h"

namespace mezzo {

namespace {

constexpr double rule = 0.1;      // of the rate with the least loss
constexpr double certain = 6;     // standard errors between two means
constexpr double equal = 2;       // standard errors within which two means are one
constexpr double relevant = 0.1;  // of a loss
constexpr double exploded = 4;    // times the loss at first

double mean_of(std::span<const RateStep> steps) {
  double sum = 0.0;
  for (const RateStep& step : steps) sum += step.loss;
  return sum / static_cast<double>(steps.size());
}

/// The standard deviation of single losses. From their differences, so that a trend is not taken for noise.
double noise_of(std::span<const RateStep> steps) {
  double squares = 0.0;
  for (std::size_t i = 1; i < steps.size(); ++i) {
    const double difference = steps[i].loss - steps[i - 1].loss;
    squares += difference * difference;
  }
  return std::sqrt(squares / 2.0 / static_cast<double>(steps.size() - 1));
}

double two_digits(double value) { return std::stod(fmt::format("{:.1e}", value)); }

bool has_exploded(std::span<const RateStep> steps) {
  constexpr auto window = static_cast<std::size_t>(rate_window);
  if (!std::isfinite(steps.back().loss)) return true;
  return steps.size() > window && mean_of(steps.last(window)) > exploded * mean_of(steps.first(window));
}

}  // namespace

double RateRange::at(std::int64_t step) const {
  const double part = static_cast<double>(step) / static_cast<double>(steps - 1);
  return lowest * std::pow(highest / lowest, part);
}

RateTrial try_rates(const Config& config, const RateRange& range, Exchange& exchange, const StopSignal& stop,
                    Logger& log) {
  Config alone = config;
  alone.data.validation.reset();  // nothing is evaluated
  const RunSetup run = trial_setup(alone, exchange, log);
  RateTrial trial;
  for (std::int64_t i = 0; i < range.steps && !trial.stopped; ++i) {
    const auto step = static_cast<std::uint64_t>(i);
    const StepResult result = run.step->take({.step = step,
                                              .slices = slices_of(alone.train, *run.inputs->train, step),
                                              .hash = i + 1 == range.steps,
                                              .learning_rate = static_cast<float>(range.at(i)),
                                              .stop = &stop,
                                              .patience = loading_patience(alone.runtime)});
    trial.steps.push_back(
        {.learning_rate = static_cast<double>(result.record.learning_rate), .loss = result.record.loss});
    trial.stopped = result.stop;
    log.status(fmt::format("step {}/{}  lr {:.2e}  loss {:.4f}", i + 1, range.steps, range.at(i),
                           result.record.loss));
    if (has_exploded(trial.steps)) break;
  }
  log.status("");
  return trial;
}

RateAdvice advise(std::span<const RateStep> steps) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const std::size_t count = steps.size();
  const auto finite = static_cast<std::size_t>(
      std::ranges::find_if_not(steps, [](const RateStep& step) { return std::isfinite(step.loss); }) -
      steps.begin());
  constexpr auto window = static_cast<std::size_t>(rate_window);
  RateAdvice advice;
  for (std::size_t i = 0; i < count; ++i) {
    if (i >= finite) {
      advice.smoothed.push_back(infinity);
      continue;
    }
    // A mean around a step does not lag behind the rate; the first and the last means lie beside it.
    const std::size_t width = std::min(window, finite);
    const std::size_t first = std::min(i - std::min(i, window / 2), finite - width);
    advice.smoothed.push_back(mean_of(steps.subspan(first, width)));
  }
  const std::size_t flat = std::min(finite, std::max(count / 3, window));
  if (flat < 2) return advice;  // without a finite loss there is nothing to learn a rate from
  const double error = noise_of(steps.first(flat)) / std::sqrt(static_cast<double>(rate_window));
  double least_behind = infinity;
  std::vector<double> behind(count);  // the least loss from each step on
  for (std::size_t i = count; i-- > 0;) behind[i] = least_behind = std::min(least_behind, advice.smoothed[i]);
  double least = infinity;
  for (std::size_t i = 0; i < count; ++i) {
    if (behind[i] > least + std::max(certain * error, relevant * least)) {
      std::size_t last = i - 1;
      while (advice.smoothed[last] > least + equal * error) --last;
      advice.diverges_at = steps[i].learning_rate;
      advice.least_at = steps[last].learning_rate;
      advice.recommended = two_digits(rule * *advice.least_at);
      break;
    }
    least = std::min(least, advice.smoothed[i]);
  }
  return advice;
}

}  // namespace mezzo
