#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/data/answer_scores.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/data/task.h"
#include "mezzo/train/probe_runner.h"

namespace mezzo {

/// A number of an evaluation, under its name in metrics.jsonl.
struct Metric {
  std::string_view name;
  double value = 0.0;
};

struct Evaluation {
  std::int64_t examples = 0;
  std::optional<double> accuracy;                ///< of tasks with options
  std::optional<double> f1 = {};                 ///< of classifications: the mean F1 of the classes
  double loss = 0.0;                             ///< sum of losses / sum of weights
  std::vector<ClassScores> classes = {};         ///< of classifications, in the order of the task's labels
  std::vector<std::vector<double>> scores = {};  ///< of tasks with options: [examples][options]

  /// What it holds, the best measure of answers first and the loss last.
  std::vector<Metric> metrics() const;
};
/// The names of what the evaluations of a task hold, in the order of Evaluation::metrics().
std::vector<std::string> metrics_of(const Task& task);

/// Evaluates examples without perturbation. They are cut into chunks by their order and lengths alone; ranks
/// share the chunks by their tokens, and sums are taken in the order of the chunks, so that the result has
/// the same bits on any number of ranks.
class Evaluator {
 public:
  /// `examples` must outlive the evaluator.
  Evaluator(std::span<const Example> examples, const Task& task);

  BatchShape largest() const { return largest_; }
  Evaluation run(ProbeRunner& runner, Exchange& exchange, Patience patience) const;

 private:
  /// What the ranks sum: of each chunk its losses, then the scores of all options of all examples.
  struct Words;
  void evaluate(std::size_t chunk, ProbeRunner& runner, Words& words) const;
  Evaluation summary(const Words& words) const;
  void add_answers(Evaluation& evaluation, const Words& words) const;

  bool chooses_;
  std::int64_t classes_;  ///< of a classification, else 0
  std::int64_t examples_;
  std::vector<LossBatch> chunks_;
  std::vector<std::size_t> first_scores_;  ///< [chunks + 1], where the scores of a chunk begin among all
  BatchShape largest_;
};

}  // namespace mezzo
