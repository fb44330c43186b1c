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
#include "mezzo/io/line_reader.h"
#include "mezzo/train/reporter.h"
#include "mezzo/train/trainer.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

/// What a run has come to, as its metrics.jsonl says.
struct SweepResult {
  const SweepMember* member = nullptr;
  std::string folder;
  std::string failure;  ///< why it ended, one sentence; empty: it is done
  std::optional<std::uint64_t> step;
  std::map<std::string, double> values;  ///< by their names in metrics.jsonl; the last ones
};

constexpr const char* numbers[] = {"eval_accuracy", "eval_loss", "loss", "total_seconds"};

void read_metrics(SweepResult& result) {
  const std::string path = RunFolder{result.folder}.metrics();
  if (!file_exists(path)) return;
  LineReader lines(path);
  for (std::string line; lines.next(line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    if (json.contains("step") && json["step"].is_number_unsigned())
      result.step = json["step"].get<std::uint64_t>();
    for (const char* name : numbers) {
      if (!json.contains(name)) continue;
      if (json[name].is_number()) result.values[name] = json[name].get<double>();
      else result.values.erase(name);  // not finite, or not for this task: older ones do not stand for it
    }
  }
}

/// The measure that all runs which are done have: of answers where there is one, else a loss.
std::string metric_of(const std::vector<SweepResult>& results) {
  for (const char* name : {"eval_accuracy", "eval_loss"}) {
    const auto has = [&](const SweepResult& r) { return r.failure.empty() && r.values.contains(name); };
    if (std::ranges::any_of(results, has)) return name;
  }
  return "loss";
}

/// The best first; those without the metric and those that failed come last, in the order of the grid.
void sort_by(std::vector<SweepResult>& results, const std::string& metric) {
  const bool more_is_better = metric == "eval_accuracy";
  const auto rank = [&](const SweepResult& result) {
    const auto found = result.values.find(metric);
    const bool counts = result.failure.empty() && found != result.values.end();
    return std::pair(!counts, counts ? (more_is_better ? -found->second : found->second) : 0.0);
  };
  std::ranges::stable_sort(results, {}, rank);
}

Json to_json(const std::vector<SweepResult>& results, const std::string& metric) {
  Json json = {{"metric", metric}, {"runs", Json::array()}};
  for (const SweepResult& result : results) {
    Json run = {{"name", result.member->name}, {"folder", result.folder}};
    for (const SweepValue& one : result.member->values) run["values"][one.key] = one.value;
    run["status"] = result.failure.empty() ? "finished" : "failed";
    if (!result.failure.empty()) run["error"] = result.failure;
    run["step"] = result.step ? Json(*result.step) : Json(nullptr);
    for (const char* name : numbers) {
      const auto found = result.values.find(name);
      run[name] = found == result.values.end() ? Json(nullptr) : Json(found->second);
    }
    json["runs"].push_back(std::move(run));
  }
  return json;
}

std::string to_table(const SweepGrid& grid, const std::vector<SweepResult>& results) {
  std::vector<std::vector<std::string>> rows = {grid.keys};
  for (const char* heading : {"eval_accuracy", "eval_loss", "loss", "seconds", "step", "folder"})
    rows[0].emplace_back(heading);
  for (const SweepResult& result : results) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const SweepValue& one : result.member->values) row.push_back(one.value);
    for (const char* name : numbers) {
      const auto found = result.values.find(name);
      const bool is_time = std::string_view(name) == "total_seconds";
      row.push_back(found == result.values.end() ? "-"
                                                 : fmt::format("{:.{}f}", found->second, is_time ? 1 : 4));
    }
    row.push_back(result.step ? std::to_string(*result.step) : "-");
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
    if (exchange_.rank() == 0 && has_begun) read_metrics(result);
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
