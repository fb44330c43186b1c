#pragma once
// What a person sees of a training run. Rank 0 writes: plain lines, and on a terminal a bar below them.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/core/log.h"
#include "mezzo/train/evaluator.h"

namespace mezzo {

/// The rewards of a step's probes, each the mean of its completions.
struct RewardSpread {
  double mean = 0.0;
  double deviation = 0.0;  ///< standard deviation
  double best = 0.0;
};

/// One finished step, as metrics.jsonl has it.
struct StepMetrics {
  std::uint64_t step = 0;  ///< steps done
  double epoch = 0.0;      ///< how often the examples were seen by then
  double loss = 0.0;
  std::optional<RewardSpread> rewards = {};  ///< of a generation task
  double projected_gradient_norm = 0.0;
  double learning_rate = 0.0;
  double tokens_per_second = 0.0;  ///< through forwards: tokens of the batch times probes
  double seconds = 0.0;            ///< since training began in this process
  double total_seconds = 0.0;      ///< the same, with those of the run's earlier processes
  double work_seconds_min = 0.0;   ///< of the ranks that had work, their forwards
  double work_seconds_max = 0.0;
  double exchange_seconds = 0.0;  ///< rank 0's
  std::int64_t dropped_directions = 0;
  std::optional<double> signal_to_noise = {};  ///< Estimate's
};

/// A bar of which `part`, 0 to 1, is filled, and behind it as many of the fields, ASCII in the order of their
/// weight, as fit into `columns`; without the bar where there is no room for it.
std::string progress_bar(double part, const std::vector<std::string>& fields, std::size_t columns);

/// The rows as lines, their columns aligned by the widest cell.
std::vector<std::string> aligned(const std::vector<std::vector<std::string>>& rows);

class Reporter {
 public:
  Reporter(Logger& log, std::uint64_t first_step, std::uint64_t max_steps);

  /// The first row is the heading.
  void table(const std::vector<std::vector<std::string>>& rows);
  /// An example's tokens; those that the loss reads are marked.
  void first_example(const Task& task, const Tokenizer& tokenizer, const Example& example);
  /// Every step: the bar, where there is a terminal. `log_line`: a line that stays, too.
  void step(const StepMetrics& metrics, bool log_line);
  /// With `samples` completions, where there are any.
  void evaluation(std::uint64_t step, double epoch, const Evaluation& evaluation, std::int64_t samples);
  void end_bar();

 private:
  Logger& log_;
  std::uint64_t first_step_;
  std::uint64_t max_steps_;
};

}  // namespace mezzo
