#include "mezzo/train/divergence_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace mezzo {

namespace {

std::string warning(std::uint64_t steps_done, const std::string& complaint) {
  return fmt::format(
      "step {}: {}: the run diverges; a smaller optimizer.learning_rate, a zo.step_limit or more "
      "zo.directions help",
      steps_done, complaint);
}

}  // namespace

Chance chance_of(std::span<const Example> examples, const Task& task) {
  if (!task.chooses() || examples.empty()) return {};
  const auto count = static_cast<double>(examples.size());
  std::map<std::int32_t, std::int64_t> labels;
  double loss = 0.0;
  for (const Example& example : examples) {
    ++labels[example.label];
    loss += std::log(static_cast<double>(example.options.size())) / count;
  }
  std::int64_t commonest = 0;
  for (const auto& [label, times] : labels) commonest = std::max(commonest, times);
  Chance chance{.accuracy = static_cast<double>(commonest) / count};
  if (task.loss() == TaskLoss::options) chance.loss = loss;
  return chance;
}

DivergenceWatch::Level DivergenceWatch::level_of(const std::deque<double>& losses) {
  const auto count = static_cast<double>(losses.size());
  double sum = 0.0;
  for (const double loss : losses) sum += loss;
  const double mean = sum / count;
  double squares = 0.0;
  for (const double loss : losses) squares += (loss - mean) * (loss - mean);
  return {.mean = mean, .error = std::sqrt(squares / (count - 1.0) / count)};
}

bool DivergenceWatch::above(const Level& one, const Level& other) {
  return one.mean - other.mean > certain * std::hypot(one.error, other.error) &&
         one.mean > (1.0 + relevant) * other.mean;
}

std::optional<std::string> DivergenceWatch::complaint_of_steps(const Level& now) const {
  if (steps_.loss && now.mean >= near_chance * *steps_.loss && above(now, *best_)) {
    return fmt::format("the mean loss of {} steps was {:.4g} and is {:.4g} now, where chance has {:.4g}",
                       window, best_->mean, now.mean, *steps_.loss);
  }
  if (above(now, *first_)) {
    return fmt::format("the mean loss of {} steps was {:.4g} at first and is {:.4g} now", window,
                       first_->mean, now.mean);
  }
  // A run that explodes at once has no first window worth comparing with, and one step's loss says little:
  // chance says more, where there is such a thing.
  const bool exploded = now.mean > (steps_.loss ? exploded_with_chance : exploded_without) * *first_loss_;
  if (exploded && now.mean - certain * now.error > steps_.loss.value_or(*first_loss_)) {
    return fmt::format("the first step's loss was {:.4g}, and the mean loss of the last {} is {:.4g}",
                       *first_loss_, window, now.mean);
  }
  return {};
}

std::optional<std::string> DivergenceWatch::see_step(std::uint64_t steps_done, double loss) {
  if (!std::isfinite(loss)) return {};
  if (!first_loss_) first_loss_ = loss;
  recent_.push_back(loss);
  if (recent_.size() > window) recent_.pop_front();
  if (recent_.size() < window) return {};
  const Level now = level_of(recent_);
  if (!first_) first_ = now;
  if (!best_ || now.mean < best_->mean) best_ = now;
  const std::optional<std::string> complaint = complaint_of_steps(now);
  if (!complaint) {
    if (++well_steps_ >= window) warned_of_steps_ = false;
    return {};
  }
  well_steps_ = 0;
  if (std::exchange(warned_of_steps_, true)) return {};
  return warning(steps_done, *complaint);
}

std::optional<std::string> DivergenceWatch::complaint_of(const Evaluation& now) const {
  const Evaluation& first = *first_evaluation_;
  if (now.accuracy && evaluations_.accuracy) {
    const double chance = *evaluations_.accuracy;
    const double error = std::sqrt(chance * (1.0 - chance) / static_cast<double>(now.examples));
    if (*now.accuracy <= chance + error && best_accuracy_ > chance + better * error) {
      return fmt::format("the accuracy was {:.4g} and is {:.4g} now, where chance has {:.4g}", best_accuracy_,
                         *now.accuracy, chance);
    }
  }
  // A loss may rise while the answers get better: it grows with every answer that is wrong and sure.
  const bool no_better = !now.accuracy || *now.accuracy <= *first.accuracy;
  if (no_better && !(now.loss <= (1.0 + relevant) * first.loss)) {
    return fmt::format("the evaluation's loss was {:.4g} at first and is {:.4g} now{}", first.loss, now.loss,
                       now.accuracy ? ", and its accuracy is no better" : "");
  }
  return {};
}

std::optional<std::string> DivergenceWatch::see_evaluation(std::uint64_t steps_done,
                                                           const Evaluation& evaluation) {
  if (evaluation.reward) return {};  // of a reward there is no loss that explodes
  if (!first_evaluation_) first_evaluation_ = evaluation;
  best_accuracy_ = std::max(best_accuracy_, evaluation.accuracy.value_or(0.0));
  const std::optional<std::string> complaint = complaint_of(evaluation);
  const bool news = complaint && !warned_of_evaluations_;
  warned_of_evaluations_ = complaint.has_value();
  if (!news) return {};
  return warning(steps_done, *complaint);
}

}  // namespace mezzo
