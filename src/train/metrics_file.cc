#include "mezzo/train/metrics_file.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace mezzo {

namespace {

/// JSON has no NaN: it is written as null.
double number_of(const nlohmann::json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// The step of a line of one up to `steps_done`.
std::optional<std::uint64_t> step_of(const nlohmann::json& line, std::uint64_t steps_done) {
  if (!line.contains("step") || !line["step"].is_number_unsigned()) return std::nullopt;
  const auto step = line["step"].get<std::uint64_t>();
  return step <= steps_done ? std::optional(step) : std::nullopt;
}

/// Adds the evaluation that a line is, if it is one.
void collect(const nlohmann::json& line, std::uint64_t step, std::vector<PastEvaluation>& evaluations) {
  if (!line.contains("eval_loss")) return;
  PastEvaluation& past = evaluations.emplace_back();
  past.steps_done = step;
  past.evaluation.loss = number_of(line["eval_loss"]);
  const auto read = [&](const char* name, std::optional<double>& value) {
    if (line.contains(name) && line[name].is_number()) value = line[name].get<double>();
  };
  read("eval_accuracy", past.evaluation.accuracy);
  read("eval_f1", past.evaluation.f1);
  read("eval_reward", past.evaluation.reward);
}

}  // namespace

std::vector<PastEvaluation> read_evaluations(const std::string& path, std::uint64_t steps_done) {
  std::vector<PastEvaluation> evaluations;
  read_json_lines(path, [&](const nlohmann::json& line) {
    if (const auto step = step_of(line, steps_done)) collect(line, *step, evaluations);
  });
  return evaluations;
}

BestStep best_of(const std::vector<PastEvaluation>& evaluations, const std::optional<std::string>& metric) {
  BestStep best(metric);
  for (const PastEvaluation& one : evaluations) best.see(one.steps_done, one.evaluation);
  return best;
}

std::vector<PastEvaluation> cut_metrics(const std::string& path, std::uint64_t steps_done, const Warn& warn) {
  std::vector<PastEvaluation> evaluations;
  const JsonLinesCut cut = truncate_json_lines(path, [&](const nlohmann::json& line) {
    const auto step = step_of(line, steps_done);
    if (step) collect(line, *step, evaluations);
    return step.has_value();
  });
  if (cut.malformed > 0) {
    warn(fmt::format("{}: {} lines removed that hold no whole JSON object, the first of them line {}", path,
                     cut.malformed, cut.first_malformed));
  }
  return evaluations;
}

double total_seconds_in(const std::string& path) {
  double seconds = 0.0;
  read_json_lines(path, [&](const nlohmann::json& line) {
    for (const char* key : {"seconds", "total_seconds"}) {
      if (line.contains(key) && line[key].is_number()) seconds = line[key].get<double>();
    }
  });
  return seconds;
}

void MetricsFile::append(const StepMetrics& metrics) {
  nlohmann::ordered_json line = {{"step", metrics.step},
                                 {"epoch", metrics.epoch},
                                 {"loss", metrics.loss},
                                 {"projected_gradient_norm", metrics.projected_gradient_norm},
                                 {"learning_rate", metrics.learning_rate},
                                 {"tokens_per_second", metrics.tokens_per_second},
                                 {"seconds", metrics.seconds},
                                 {"total_seconds", metrics.total_seconds},
                                 {"work_seconds_min", metrics.work_seconds_min},
                                 {"work_seconds_max", metrics.work_seconds_max},
                                 {"exchange_seconds", metrics.exchange_seconds}};
  if (metrics.rewards) {
    line["reward"] = metrics.rewards->mean;
    line["reward_std"] = metrics.rewards->deviation;
    line["reward_best"] = metrics.rewards->best;
  }
  if (metrics.signal_to_noise) line["signal_to_noise"] = *metrics.signal_to_noise;
  if (metrics.dropped_directions > 0) line["dropped_directions"] = metrics.dropped_directions;
  writer_.append(line);
}

void MetricsFile::append(std::uint64_t steps_done, double epoch, const Evaluation& evaluation,
                         std::int64_t samples) {
  nlohmann::ordered_json line = {{"step", steps_done}, {"epoch", epoch}};
  line["eval_accuracy"] =
      evaluation.accuracy ? nlohmann::ordered_json(*evaluation.accuracy) : nlohmann::ordered_json(nullptr);
  if (evaluation.f1) line["eval_f1"] = *evaluation.f1;
  if (evaluation.reward) line["eval_reward"] = *evaluation.reward;
  line["eval_loss"] = evaluation.loss;
  if (!evaluation.completions.empty()) {
    double tokens = 0.0;
    for (const GradedCompletion& one : evaluation.completions) tokens += static_cast<double>(one.tokens);
    line["eval_tokens"] = tokens / static_cast<double>(evaluation.completions.size());
    nlohmann::ordered_json& shown = line["samples"] = nlohmann::ordered_json::array();
    for (const GradedCompletion& one : first_of(evaluation.completions, samples)) {
      shown.push_back({{"prompt", one.prompt}, {"completion", one.text}, {"reward", nullptr}});
      if (one.reward) shown.back()["reward"] = *one.reward;
    }
  }
  writer_.append(line);
}

}  // namespace mezzo
