#include "mezzo/train/best_step.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

/// The name in metrics.jsonl: as in Hugging Face's trainer, "eval_" may be left out.
std::string full_name(const std::string& name) { return name.starts_with("eval_") ? name : "eval_" + name; }

/// NaN, which is never better, where the evaluation has no such metric.
double value_of(const Evaluation& evaluation, const std::string& metric) {
  for (const Metric& one : evaluation.metrics()) {
    if (one.name == metric) return one.value;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

void check_metric(const TrainConfig& config, const Task& task) {
  if (!config.metric_for_best_model) return;
  const std::vector<std::string> known = metrics_of(task);
  if (std::ranges::count(known, full_name(*config.metric_for_best_model)) > 0) return;
  throw UsageError("train.metric_for_best_model: found {}, expected a metric of the task's evaluations: {}",
                   quote(*config.metric_for_best_model), fmt::join(known, ", "));
}

bool less_is_better(std::string_view metric) { return metric.ends_with("loss"); }

BestStep::BestStep(const std::optional<std::string>& metric) : metric_(metric ? full_name(*metric) : "") {}

bool BestStep::see(std::uint64_t steps_done, const Evaluation& evaluation) {
  if (metric_.empty()) metric_ = evaluation.metrics().front().name;
  const double value = value_of(evaluation, metric_);
  const bool better =
      !best_ ? !std::isnan(value) : (less_is_better(metric_) ? value < best_->value : value > best_->value);
  if (better) {
    best_ = {.steps_done = steps_done, .value = value};
    since_ = 0;
  } else if (best_) {
    ++since_;
  }
  return better;
}

bool takes_best(const Config& config) {
  return config.data.evaluates() && config.train.load_best_model_at_end.value_or(true);
}

}  // namespace mezzo
