#pragma once
// metrics.jsonl, a line a logged step and a line an evaluation.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/io/json_lines.h"
#include "mezzo/train/best_step.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/reporter.h"
#include "mezzo/train/run_folder.h"

namespace mezzo {

struct PastEvaluation {
  std::uint64_t steps_done = 0;
  Evaluation evaluation;  ///< but for the number of examples, which the file does not hold
};
/// The evaluations of steps up to `steps_done`, in order; changes nothing. Lines that hold no whole JSON
/// object are passed over, and a file that is not there is empty.
std::vector<PastEvaluation> read_evaluations(const std::string& path, std::uint64_t steps_done);
/// The best step of what was evaluated, with train.metric_for_best_model.
BestStep best_of(const std::vector<PastEvaluation>& evaluations, const std::optional<std::string>& metric);
/// Takes out of the file what is torn or of steps after `steps_done`, and returns the evaluations that stay,
/// in order. A file that is not there is empty.
std::vector<PastEvaluation> cut_metrics(const std::string& path, std::uint64_t steps_done, const Warn& warn);

/// How long the run has trained by the last step that the file holds, in all its processes together. A line
/// of a version that did not count them has its own process's time.
double total_seconds_in(const std::string& path);

class MetricsFile {
 public:
  explicit MetricsFile(const std::string& path) : writer_(path) {}

  void append(const StepMetrics& metrics);
  /// With `samples` of its completions, where there are any.
  void append(std::uint64_t steps_done, double epoch, const Evaluation& evaluation, std::int64_t samples);
  void sync() { writer_.sync(); }

 private:
  JsonLinesWriter writer_;
};

}  // namespace mezzo
