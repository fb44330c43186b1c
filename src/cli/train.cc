#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/measure/rate_finder.h"
#include "mezzo/train/reporter.h"
#include "mezzo/train/trainer.h"

namespace mezzo {

namespace {

struct RateOptions {
  bool find = false;
  RateRange range;
  bool json = false;
};

void add_rate_options(CLI::App& verb, RateOptions& options) {
  auto* find = verb.add_flag("--lr-find", options.find,
                             "instead of training, try rising learning rates from the config's start and "
                             "recommend one; nothing is written");
  verb.add_option("--lr-find-min", options.range.lowest, "the first rate")
      ->needs(find)
      ->check(finite_number() & CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--lr-find-max", options.range.highest, "the last rate")
      ->needs(find)
      ->check(finite_number() & CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--lr-find-steps", options.range.steps, "steps from the one to the other")
      ->needs(find)
      ->check(CLI::Range(3 * rate_window, std::int64_t{100'000}))
      ->capture_default_str();
  verb.add_flag("--json", options.json, "the rates as JSON on standard output")->needs(find);
}

constexpr const char* rate_rule =
    "a tenth of the rate at which the smoothed loss is least before it diverges";

nlohmann::ordered_json to_json(const RateTrial& trial, const RateAdvice& advice) {
  using Json = nlohmann::ordered_json;
  Json json = {{"recommended_learning_rate", nullptr},
               {"least_at", nullptr},
               {"diverges_at", nullptr},
               {"rule", rate_rule}};
  if (advice.recommended) {
    json["recommended_learning_rate"] = *advice.recommended;
    json["least_at"] = *advice.least_at;
    json["diverges_at"] = *advice.diverges_at;
  }
  json["steps"] = Json::array();
  for (std::size_t i = 0; i < trial.steps.size(); ++i) {  // what is not finite becomes null
    json["steps"].push_back({{"learning_rate", trial.steps[i].learning_rate},
                             {"loss", trial.steps[i].loss},
                             {"smoothed_loss", advice.smoothed[i]}});
  }
  return json;
}

/// The smoothed losses at about 30 of the rates, each with a bar from no loss to twice the first one.
std::string to_text(const RateTrial& trial, const RateAdvice& advice) {
  constexpr std::size_t rows = 30;
  constexpr double width = 40.0;
  std::vector<std::vector<std::string>> table = {{"learning rate", "loss", ""}};
  const std::size_t stride = (trial.steps.size() + rows - 1) / rows;
  for (std::size_t i = 0; i < trial.steps.size(); i += stride) {
    const double loss = advice.smoothed[i];
    const double part = std::min(loss / (2.0 * advice.smoothed[0]), 1.0);
    const bool diverged = advice.diverges_at && trial.steps[i].learning_rate >= *advice.diverges_at;
    const auto length = static_cast<std::size_t>(std::isnan(part) ? 0.0 : width * part);
    table.push_back({fmt::format("{:.1e}", trial.steps[i].learning_rate), fmt::format("{:.4f}", loss),
                     std::string(length, diverged ? '!' : '#')});
  }
  std::string text;
  for (const std::string& line : aligned(table)) text += line + '\n';
  if (!advice.recommended) {
    return text + "no rate diverged, so that none can be recommended; a larger --lr-find-max shows more\n";
  }
  return text + fmt::format(
                    "least at {:.1e}, diverges at {:.1e} (!)\n"
                    "optimizer.learning_rate={:.1e} is recommended: {}\n",
                    *advice.least_at, *advice.diverges_at, *advice.recommended, rate_rule);
}

ExitCode find_rate(const Config& config, const RateOptions& options, VerbContext& context) {
  if (!(options.range.lowest < options.range.highest)) {
    throw UsageError("--lr-find-min: found {}, expected less than --lr-find-max ({})", options.range.lowest,
                     options.range.highest);
  }
  const StopSignal stop;
  const RateTrial trial = try_rates(config, options.range, context.exchange, stop, context.log);
  if (trial.stopped) {
    context.log.info("stopped after {} rates; nothing is recommended", trial.steps.size());
    return ExitCode::stopped;
  }
  const RateAdvice advice = advise(trial.steps);
  if (!std::isfinite(trial.steps[0].loss)) {
    throw JobFailed({.code = ExitCode::error,
                     .message = fmt::format("no direction had a finite loss at a learning rate of {:.1e}",
                                            trial.steps[0].learning_rate)});
  }
  if (context.exchange.rank() != 0) return ExitCode::done;
  print_text(options.json ? json_text(to_json(trial, advice)) + '\n' : to_text(trial, advice));
  return ExitCode::done;
}

}  // namespace

VerbAction add_train(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
    TrainOptions options;
    RateOptions rates;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  verb.add_flag("--overwrite", arguments->options.overwrite, "replace the run that output_dir holds");
  verb.add_flag("--show-config", arguments->options.show_config,
                "print the whole resolved config, not only what differs from the defaults");
  add_rate_options(verb, arguments->rates);
  verb.footer("Example: mpirun -np 2 mezzo train configs/quickstart.yaml train.max_steps=100");
  return [arguments](VerbContext& context) {
    Config config;
    together(context.exchange, starting_patience,
             [&] { config = load_config(arguments->config, arguments->overrides, ConfigUse::train); });
    if (arguments->rates.find) return find_rate(config, arguments->rates, context);
    const StopSignal stop;
    const TrainResult result = train(config, arguments->options, context.exchange, stop, context.log);
    return result == TrainResult::stopped ? ExitCode::stopped : ExitCode::done;
  };
}

}  // namespace mezzo
