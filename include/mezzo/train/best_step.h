#pragma once
// Which step of a run is the best by its evaluations, and when there have been enough without a better one.
// Both are pure functions of the evaluations in order, so that a resumed run, which reads those before it
// from metrics.jsonl, decides as one that was never stopped.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mezzo/core/config.h"
#include "mezzo/train/evaluator.h"

namespace mezzo {

/// UsageError listing the metrics of the task when train.metric_for_best_model is none of them.
void check_metric(const TrainConfig& config, const Task& task);

/// Whether less of a metric is better: of losses. Of all else more is.
bool less_is_better(std::string_view metric);

class BestStep {
 public:
  struct Best {
    std::uint64_t steps_done = 0;
    double value = 0.0;  ///< of the metric
  };

  /// `metric`: train.metric_for_best_model; none: the first that the first evaluation holds.
  explicit BestStep(const std::optional<std::string>& metric);

  /// The next evaluation: whether it is better than all before it. One without a number for the metric never
  /// is, and of equal ones the first is the best.
  bool see(std::uint64_t steps_done, const Evaluation& evaluation);

  const std::optional<Best>& best() const { return best_; }
  const std::string& metric() const { return metric_; }  ///< "" before the first evaluation, unless named
  /// Whether so many evaluations in a row were no better than the best before them; none: never.
  bool is_spent(std::optional<std::int64_t> patience) const { return patience && since_ >= *patience; }

 private:
  std::string metric_;
  std::optional<Best> best_;
  std::int64_t since_ = 0;  ///< evaluations behind the best
};

/// Whether the result of a config's run is its best step; else it is the last one.
bool takes_best(const Config& config);

}  // namespace mezzo
