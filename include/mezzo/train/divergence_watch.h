#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>

#include "mezzo/data/task.h"
#include "mezzo/train/evaluator.h"

namespace mezzo {

/// What answers without knowledge come to, where the task has such answers.
struct Chance {
  std::optional<double> loss = {};      ///< with equal odds on all options: the `options` loss has it
  std::optional<double> accuracy = {};  ///< by always choosing the commonest label
};
Chance chance_of(std::span<const Example> examples, const Task& task);

/// Notices a run that is worse than the model it began from, or back at chance after it was better. It is
/// shown every step and every evaluation of a run in order, those before a resume too.
///
/// The loss of a step depends on its batch, so that means over windows of steps are compared: one is above
/// another when they differ by `certain` standard errors and by `relevant` of the lower one.
class DivergenceWatch {
 public:
  static constexpr std::size_t window = 20;            ///< steps
  static constexpr double certain = 5.0;               ///< standard errors between two windows
  static constexpr double relevant = 0.02;             ///< of a loss
  static constexpr double exploded_with_chance = 1.5;  ///< times the first loss, and certainly above chance
  static constexpr double exploded_without = 2.0;      ///< times the first loss, and certainly above it
  static constexpr double near_chance = 0.98;          ///< of chance's loss
  static constexpr double better = 3.0;                ///< standard errors of an accuracy above chance

  DivergenceWatch(Chance steps, Chance evaluations) : steps_(steps), evaluations_(evaluations) {}

  // One sentence where there is something to warn about; then no more until the run has been well again, for
  // a window or for an evaluation.
  std::optional<std::string> see_step(std::uint64_t steps_done,
                                      double loss);  ///< passes over what is not finite
  std::optional<std::string> see_evaluation(std::uint64_t steps_done, const Evaluation& evaluation);
  /// What was shown so far is history: a run that is still bad is warned about again.
  void rearm() { warned_of_steps_ = warned_of_evaluations_ = false; }

 private:
  /// Mean of some losses and its standard error.
  struct Level {
    double mean = 0.0;
    double error = 0.0;
  };
  static Level level_of(const std::deque<double>& losses);
  static bool above(const Level& one, const Level& other);

  std::optional<std::string> complaint_of_steps(const Level& now) const;
  std::optional<std::string> complaint_of(const Evaluation& now) const;

  Chance steps_;
  Chance evaluations_;
  std::deque<double> recent_;  ///< losses of at most `window` steps
  std::optional<double> first_loss_;
  std::optional<Level> first_;  ///< of the first window
  std::optional<Level> best_;   ///< of all windows, the lowest
  std::optional<Evaluation> first_evaluation_;
  double best_accuracy_ = 0.0;
  bool warned_of_steps_ = false;
  std::size_t well_steps_ = 0;  ///< in a row
  bool warned_of_evaluations_ = false;
};

}  // namespace mezzo
