#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/sweep_grid.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/io/json_lines.h"
#include "mezzo/train/metrics_file.h"
#include "mezzo/train/reporter.h"
#include "mezzo/train/trainer.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

/// What a run has come to, as its metrics.jsonl says.
struct SweepResult {
  const SweepMember* member = nullptr;
  std::string folder;
  std::string failure;                                 ///< why it ended, one sentence; empty: it is done
  std::optional<std::uint64_t> steps;                  ///< done
  std::optional<std::uint64_t> of_step;                ///< that the evaluation is of
  std::string metric;                                  ///< that it is compared by; "": it has no evaluation
  std::vector<std::pair<std::string, double>> values;  ///< finite, by their names in metrics.jsonl

  std::optional<double> value(std::string_view name) const {
    for (const auto& [own, number] : values) {
      if (own == name) return number;
    }
    return std::nullopt;
  }
};

/// The evaluation is that of the step that adapter/ is of: the best one, or the last. The loss is that of the
/// last step.
void read_metrics(SweepResult& result, const Config& config) {
  const std::string path = RunFolder{result.folder}.metrics();
  const auto add = [&](std::string_view name, double value) {
    if (std::isfinite(value)) result.values.emplace_back(name, value);
  };
  std::optional<double> loss;
  read_json_lines(path, [&](const nlohmann::json& line) {
    if (line.contains("step") && line["step"].is_number_unsigned())
      result.steps = line["step"].get<std::uint64_t>();
    if (line.contains("loss"))
      loss = line["loss"].is_number() ? std::optional(line["loss"].get<double>()) : std::nullopt;
  });
  if (!result.steps) return;
  const std::vector<PastEvaluation> evaluations = read_evaluations(path, *result.steps);
  if (!evaluations.empty()) {
    const BestStep best = best_of(evaluations, config.train.metric_for_best_model);
    result.metric = best.metric();
    const PastEvaluation* chosen = &evaluations.back();
    for (const PastEvaluation& one : evaluations) {
      if (takes_best(config) && best.best() && one.steps_done == best.best()->steps_done) chosen = &one;
    }
    result.of_step = chosen->steps_done;
    for (const Metric& metric : chosen->evaluation.metrics()) add(metric.name, metric.value);
  }
  if (loss) add("loss", *loss);
  add("seconds", total_seconds_in(path));
}

/// What runs are compared by: what the first of them with an evaluation is, else the loss of its last step.
std::string metric_of(const std::vector<SweepResult>& results) {
  for (const SweepResult& result : results) {
    if (result.failure.empty() && !result.metric.empty()) return result.metric;
  }
  return "loss";
}

/// The best first; those without the metric and those that failed come last, in the order of the grid.
void sort_by(std::vector<SweepResult>& results, const std::string& metric) {
  const bool less = less_is_better(metric);
  const auto place = [&](const SweepResult& result) {
    const std::optional<double> value = result.failure.empty() ? result.value(metric) : std::nullopt;
    return std::pair(!value, less ? value.value_or(0.0) : -value.value_or(0.0));
  };
  std::ranges::stable_sort(results, {}, place);
}

/// Names of the numbers that any of the runs has.
std::vector<std::string> names_of(const std::vector<SweepResult>& results) {
  std::vector<std::string> names;
  for (const SweepResult& result : results) {
    for (const auto& [name, number] : result.values) {
      if (std::ranges::count(names, name) == 0) names.push_back(name);
    }
  }
  return names;
}

Json to_json(const std::vector<SweepResult>& results, const std::string& metric) {
  Json json = {{"metric", metric}, {"runs", Json::array()}};
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(nullptr); };
  for (const SweepResult& result : results) {
    Json run = {{"name", result.member->name}, {"folder", result.folder}};
    for (const SweepValue& one : result.member->values) run["values"][one.key] = one.value;
    run["status"] = result.failure.empty() ? "finished" : "failed";
    if (!result.failure.empty()) run["error"] = result.failure;
    run["step"] = or_null(result.steps);
    run["of_step"] = or_null(result.of_step);
    for (const std::string& name : names_of(results)) run[name] = or_null(result.value(name));
    json["runs"].push_back(std::move(run));
  }
  return json;
}

std::string to_table(const SweepGrid& grid, const std::vector<SweepResult>& results) {
  const std::vector<std::string> names = names_of(results);
  std::vector<std::vector<std::string>> rows = {grid.keys};
  rows[0].insert(rows[0].end(), names.begin(), names.end());
  rows[0].insert(rows[0].end(), {"of step", "steps", "folder"});
  const auto or_dash = [](const auto& value) { return value ? fmt::format("{}", *value) : "-"; };
  for (const SweepResult& result : results) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const SweepValue& one : result.member->values) row.push_back(one.value);
    for (const std::string& name : names) {
      const std::optional<double> value = result.value(name);
      row.push_back(value ? fmt::format("{:.{}f}", *value, name == "seconds" ? 1 : 4) : "-");
    }
    row.push_back(or_dash(result.of_step));
    row.push_back(or_dash(result.steps));
    row.push_back(result.member->name + (result.failure.empty() ? "" : "  (failed)"));
  }
  std::string text;
  for (const std::string& line : aligned(rows)) text += line + '\n';
  return text;
}

/// What the sweep does, from the command line on.
class Sweep {
 public:
  Sweep(const std::string& config, const std::vector<std::string>& overrides, const TrainOptions& options,
        bool stops_on_error, VerbContext& context)
      : options_(options), stops_on_error_(stops_on_error), exchange_(context.exchange), log_(context.log) {
    together(exchange_, starting_patience, [&] { read(config, overrides); });
    std::string names;
    for (const SweepMember& member : grid_.members) names += member.name + '\n';
    check_same(exchange_, "the list of runs", names, starting_patience);
  }

  ExitCode run(bool json);

 private:
  void read(const std::string& path, const std::vector<std::string>& overrides);
  bool train_member(std::size_t index, const StopSignal& stop);
  void print(bool json);

  const TrainOptions options_;
  const bool stops_on_error_;
  Exchange& exchange_;
  Logger& log_;
  SweepGrid grid_;
  std::string folder_;
  std::vector<Config> configs_;  ///< a member
  std::vector<SweepResult> results_;
  std::size_t failed_ = 0;
};

/// Every config is read before a run begins, so that a value that no run can have is an error at once.
void Sweep::read(const std::string& path, const std::vector<std::string>& overrides) {
  grid_ = expand_grid(overrides);
  std::map<std::string, std::string> names;  // by what a config says
  for (const SweepMember& member : grid_.members) {
    Config& config = configs_.emplace_back(load_config(path, grid_.overrides_of(member), ConfigUse::train));
    folder_ = config.train.output_dir.value();
    const auto [same, is_new] = names.emplace(to_yaml(config), member.name);
    if (!is_new)
      throw UsageError("{} and {} are the same run; expected different values", same->second, member.name);
    config.train.output_dir = folder_ + "/" + member.name;
  }
  if (is_run(folder_)) {
    throw UsageError(
        "train.output_dir: {} holds a run; expected a folder for the runs of the sweep, "
        "train.output_dir=FOLDER",
        folder_);
  }
}

/// Trains one run, or goes on with it; true when it was stopped.
bool Sweep::train_member(std::size_t index, const StopSignal& stop) {
  const SweepMember& member = grid_.members[index];
  const Config& config = configs_[index];
  SweepResult& result = results_.emplace_back();
  result.member = &member;
  result.folder = config.train.output_dir.value();
  log_.info("run {} of {}: {}", index + 1, grid_.members.size(), member.name);
  bool has_begun = true;  // else the folder holds another run, say, whose numbers are not this one's
  const auto failed = [&](const Error& error) {
    result.failure = error.what();
    has_begun = error.exit_code() != ExitCode::usage;
    ++failed_;
    log_.warning("run {} of {} failed: {}: {}", index + 1, grid_.members.size(), member.name, error.what());
  };
  bool stopped = false;
  try {
    Logger log(log_.options());  // of this run: a warning that an earlier one gave is given again
    stopped = train(config, options_, exchange_, stop, log) == TrainResult::stopped;
  } catch (const JobFailed& error) {  // on every rank
    failed(error);
  } catch (const Error& error) {
    if (exchange_.size() > 1) throw;  // the other ranks are in the middle of it
    failed(error);
  }
  together(exchange_, loading_patience(config.runtime), [&] {
    if (exchange_.rank() == 0 && has_begun) read_metrics(result, config);
  });
  return stopped;
}

void Sweep::print(bool json) {
  if (exchange_.rank() != 0) return;
  const std::string metric = metric_of(results_);
  sort_by(results_, metric);
  if (json) std::cout << json_text(to_json(results_, metric)) << '\n';
  else
    print_text(
        fmt::format("{}: {} runs by {}\n{}", folder_, results_.size(), metric, to_table(grid_, results_)));
  flush_standard_output();
}

ExitCode Sweep::run(bool json) {
  const StopSignal stop;
  for (std::size_t i = 0; i < grid_.members.size(); ++i) {
    const Patience patience = loading_patience(configs_[i].runtime);
    const std::vector<std::string> asked = agree(exchange_, stop.requested() ? "stop" : "", patience);
    const bool ends = std::ranges::any_of(asked, [](const std::string& one) { return !one.empty(); });
    if (ends || train_member(i, stop)) {
      log_.info("the sweep was stopped at run {} of {}; the same command goes on from there", i + 1,
                grid_.members.size());
      return ExitCode::stopped;
    }
    if (failed_ > 0 && stops_on_error_) break;
  }
  print(json);
  if (failed_ == 0) return ExitCode::done;
  throw JobFailed({.code = ExitCode::error,
                   .message = fmt::format("{} of {} runs failed{}", failed_, grid_.members.size(),
                                          stops_on_error_ ? ", the last that was begun" : "")});
}

}  // namespace

VerbAction add_sweep(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
    TrainOptions options;
    bool stops_on_error = false;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides,
                  "a.b=value,value,...: one run each, in every combination; a.b=value for all of them");
  verb.add_flag("--overwrite", arguments->options.overwrite, "replace runs that are there already");
  verb.add_flag("--stop-on-error", arguments->stops_on_error, "end with the first run that fails");
  verb.add_flag("--json", arguments->json, "the table as JSON on standard output");
  verb.footer(
      "Each run has a folder of its own below train.output_dir. The same command goes on where it was\n"
      "stopped, and passes over runs that are done. Ends with a table, the best run first; 1 when one "
      "failed.\n"
      "\n"
      "Example: mezzo sweep configs/quickstart.yaml optimizer.learning_rate=1e-3,3e-3 zo.directions=8,16 \\\n"
      "           train.output_dir=runs/sweep");
  return [arguments](VerbContext& context) {
    return Sweep(arguments->config, arguments->overrides, arguments->options, arguments->stops_on_error,
                 context)
        .run(arguments->json);
  };
}

}  // namespace mezzo
