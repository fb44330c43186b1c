#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
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
#include "mezzo/train/rewarded_generation.h"

namespace mezzo {

/// A number of an evaluation, under its name in metrics.jsonl.
struct Metric {
  std::string_view name;
  double value = 0.0;
};

/// What the unperturbed model wrote behind an example's prompt, greedily, and what it is worth.
struct GradedCompletion {
  std::string prompt;
  std::string text;
  std::int64_t tokens = 0;
  std::optional<double> reward;  ///< none could be had
};

struct Evaluation {
  std::int64_t examples = 0;
  /// Of tasks with options the part of right answers; of generations that of rewards of 1 or more.
  std::optional<double> accuracy;
  std::optional<double> f1 = {};                   ///< of classifications: the mean F1 of the classes
  std::optional<double> reward = {};               ///< of generations: the mean of those that could be had
  double loss = 0.0;                               ///< sum of losses / sum of weights; less the reward
  std::vector<ClassScores> classes = {};           ///< of classifications, in the order of the task's labels
  std::vector<std::vector<double>> scores = {};    ///< of tasks with options: [examples][options]
  std::vector<GradedCompletion> completions = {};  ///< of generations: [examples]

  /// What it holds, the best measure of answers first and the loss last.
  std::vector<Metric> metrics() const;
};
/// The first of an evaluation's completions, `count` at most.
inline std::span<const GradedCompletion> first_of(const std::vector<GradedCompletion>& completions,
                                                  std::int64_t count) {
  return std::span(completions).first(std::min(completions.size(), static_cast<std::size_t>(count)));
}

/// The names of what the evaluations of a task hold, in the order of Evaluation::metrics().
std::vector<std::string> metrics_of(const Task& task);

/// Evaluates examples without perturbation: the result has the same bits on any number of ranks.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  virtual BatchShape largest() const = 0;  ///< what run() needs reserved
  /// All ranks together.
  virtual Evaluation run(ProbeRunner& runner, Exchange& exchange, Patience patience) const = 0;
};

/// The task's likelihoods or, with a `generation`, the rewards of what the model writes. All must outlive it.
std::unique_ptr<Evaluator> make_evaluator(std::span<const Example> examples, const Task& task,
                                          const RewardedGeneration* generation);

}  // namespace mezzo
