#include "mezzo/measure/forecast.h"

#include <cmath>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"
#include "mezzo/model/family.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

std::string_view name_of(GroupReason reason) {
  switch (reason) {
    case GroupReason::asked:
      return "asked";
    case GroupReason::fair_share:
      return "fair_share";
    case GroupReason::memory:
      return "memory";
  }
  return "";
}

std::string_view text_of(GroupReason reason) {
  switch (reason) {
    case GroupReason::asked:
      return "as zo.probes_per_forward asks";
    case GroupReason::fair_share:
      return "a rank's fair share, which fits in memory";
    case GroupReason::memory:
      return "even groups of what fits in memory";
  }
  return "";
}

Json to_json(const RunForecast& run, const Placement& placement, int ranks) {
  Json json = {{"backend", placement.device_name()},
               {"dtype", placement.dtype_name()},
               {"threads", placement.threads},
               {"ranks", ranks},
               {"layers", run.layers},
               {"first_perturbed_layer", run.first_perturbed_layer},
               {"parameters", run.parameters.all},
               {"active_parameters", run.parameters.active},
               {"trainables", run.trainables},
               {"weight_bytes", run.weight_bytes},
               {"trainable_bytes", run.trainable_bytes},
               {"optimizer_bytes", run.optimizer_bytes},
               {"activation_bytes", run.plan.activation_bytes},
               {"scratch_bytes", run.plan.scratch_bytes},
               {"evaluation_activation_bytes", run.evaluation_activation_bytes},
               {"evaluation_scratch_bytes", run.evaluation_scratch_bytes},
               {"total_bytes", run.total_bytes()},
               {"memory_bytes", run.memory ? Json(*run.memory) : Json(nullptr)},
               {"fits", run.memory ? Json(run.total_bytes() <= *run.memory) : Json(nullptr)},
               {"probes", run.probes},
               {"slices", run.slices},
               {"probes_per_forward", run.plan.group},
               {"probes_per_forward_reason", name_of(run.reason)},
               {"forwards", run.forwards}};
  json["largest_slice"] = {{"tokens", run.largest.tokens},
                           {"sequences", run.largest.sequences},
                           {"loss_rows", run.largest.loss_rows},
                           {"targets", run.largest.targets},
                           {"longest", run.largest.longest}};
  json["counted_steps"] = run.counted_steps;
  json["operations"] = {{"step", run.step.total()},
                        {"products", run.step.products},
                        {"low_rank", run.step.low_rank},
                        {"attention", run.step.attention},
                        {"rank_products", run.rank_products}};
  json["scaling"] = Json::array();
  for (const StepForecast& step : run.scaling) {
    const auto measured = [&](double value) { return step.step > 0.0 ? Json(value) : Json(nullptr); };
    json["scaling"].push_back({{"ranks", step.ranks},
                               {"working_ranks", step.working_ranks},
                               {"probes_per_forward", step.group},
                               {"largest_load", step.largest_load},
                               {"balance", step.balance},
                               {"exchange_words", step.words},
                               {"exchange_s", step.exchange},
                               {"work_s", measured(step.work)},
                               {"step_s", measured(step.step)},
                               {"speed_up", measured(step.speed_up)},
                               {"efficiency", measured(step.efficiency)}});
  }
  return json;
}

std::string to_text(const RunForecast& run, const Placement& placement, int ranks) {
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / (1u << 20); };
  std::string text = fmt::format("device      {} {}, {} rank{}", placement.device_name(),
                                 placement.dtype_name(), ranks, ranks == 1 ? "" : "s");
  if (placement.device == DeviceKind::cpu)
    text += fmt::format(" of {} thread{}", placement.threads, placement.threads == 1 ? "" : "s");
  text += fmt::format("\nmodel       {} layers, {} perturbed from layer {} on; {} trainable numbers\n",
                      run.layers, run.layers - run.first_perturbed_layer, run.first_perturbed_layer,
                      run.trainables);
  if (run.parameters.active < run.parameters.all) {
    text += fmt::format("            {:.4g} parameters, of which {:.4g} are active for a token\n",
                        static_cast<double>(run.parameters.all), static_cast<double>(run.parameters.active));
  }
  text += fmt::format("memory      {:.1f} MiB a rank", mib(run.total_bytes()));
  if (run.memory) {
    text += fmt::format(" of {:.1f} MiB{}", mib(*run.memory),
                        run.total_bytes() <= *run.memory ? "" : ": it does not fit");
  }
  text += fmt::format(
      "\n            weights {:.1f}, trainables {:.1f}, optimizer {:.1f}, activations {:.1f}, scratch {:.1f} "
      "MiB\n",
      mib(run.weight_bytes), mib(run.trainable_bytes), mib(run.optimizer_bytes),
      mib(run.plan.activation_bytes), mib(run.plan.scratch_bytes));
  if (run.evaluation_activation_bytes > 0) {
    text +=
        fmt::format("            an evaluation: activations {:.1f}, scratch {:.1f} MiB, in the same place\n",
                    mib(run.evaluation_activation_bytes), mib(run.evaluation_scratch_bytes));
  }
  text += fmt::format("group       {} of {} probes a forward: {}\n", run.plan.group, run.probes,
                      text_of(run.reason));
  text += fmt::format("step        {:.4g} forward{} on all ranks, of up to {} tokens a probe\n", run.forwards,
                      run.forwards == 1.0 ? "" : "s", run.largest.tokens);
  const double percent = 100.0 / run.step.total();
  text += fmt::format(
      "operations  {:.4g} a step (mean of {}): products {:.1f} %, low-rank terms {:.1f} %, attention {:.1f} "
      "%\n",
      run.step.total(), run.counted_steps, run.step.products * percent, run.step.low_rank * percent,
      run.step.attention * percent);
  return text;
}

/// A line for each number of ranks.
std::string scaling_text(const std::vector<StepForecast>& scaling) {
  const bool timed = scaling.front().step > 0.0;
  std::string text = fmt::format("{:>8}{:>9}{:>16}{:>14}{:>9}", "ranks", "working", "probes/forward",
                                 "largest load", "balance");
  if (timed)
    text += fmt::format("{:>14}{:>14}{:>10}{:>12}", "exchange s", "step s", "speed-up", "efficiency");
  text += '\n';
  for (const StepForecast& step : scaling) {
    text += fmt::format("{:>8}{:>9}{:>16}{:>14.0f}{:>9.3f}", step.ranks, step.working_ranks, step.group,
                        step.largest_load, step.balance);
    if (timed) {
      text += fmt::format("{:>14.6f}{:>14.6f}{:>10.2f}{:>12.3f}", step.exchange, step.step, step.speed_up,
                          step.efficiency);
    }
    text += '\n';
  }
  return text;
}

/// What `mezzo profile --json` wrote, as far as a forecast needs it.
struct Measured {
  std::string path;
  StepParts parts;
  Json of;  ///< what it was measured of
};

Measured read_measured(const std::string& path) {
  const nlohmann::json json = read_json_file(path);
  const JsonCursor profile(json, path);
  const JsonCursor parts = profile["parts"];
  if (!parts.is_object()) parts.fail("what `mezzo profile CONFIG --json` writes");
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  Measured measured{.path = path,
                    .parts = {.tokens = parts["slice_tokens"].integer(0, most),
                              .begin = parts["begin_s"].number(),
                              .forwards = {},
                              .update = parts["update_s"].number(),
                              .hash = parts["hash_s"].number(),
                              .host = parts["host_s"].number()},
                    .of = {}};
  for (const JsonCursor& forward : parts["forwards"].elements())
    measured.parts.forwards.push_back(
        {.probes = forward["probes"].integer(0, most), .seconds = forward["seconds"].number()});
  for (const char* key : {"backend", "dtype", "threads", "weight_bytes"}) {
    if (profile[key].missing()) profile[key].fail("what `mezzo profile CONFIG --json` writes");
    measured.of[key] = profile[key].value();
  }
  bool sound = measured.parts.tokens > 0 && !measured.parts.forwards.empty();
  std::int64_t before = 0;
  for (const StepParts::Forward& forward : measured.parts.forwards) {
    sound = sound && forward.probes > before && forward.seconds > 0.0;
    before = forward.probes;
  }
  if (!sound) {
    throw InputError(
        "{}: parts: expected slice_tokens of at least 1 and forwards in ascending order of probes, each of "
        "more than 0 seconds",
        path);
  }
  return measured;
}

/// UsageError unless the parts were measured on a rank like those of the forecast.
void check_measured(const Measured& measured, const Json& forecast) {
  for (const auto& [key, value] : measured.of.items()) {
    if (key == "threads" && forecast.at("backend") != "cpu") continue;
    if (value != forecast.at(key)) {
      throw UsageError("--measured: {}: {} is {} there, but {} in this forecast; profile the same config",
                       measured.path, key, value.dump(), forecast.at(key).dump());
    }
  }
}

}  // namespace

VerbAction add_estimate(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
    std::string device;
    std::optional<double> memory_gib, tflops;
    std::vector<int> ranks = {1};
    std::string measured;
    std::vector<double> exchange_us;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  verb.add_option("--device", arguments->device, "in place of runtime.device; need not be there")
      ->check(CLI::IsMember({"cpu", "cuda", "reference"}));
  verb.add_option(
          "--memory-gib", arguments->memory_gib,
          "memory of a rank's device (default: what is free on this host; of a card it has to be said)")
      ->check(finite_number())
      ->check(CLI::PositiveNumber);
  verb.add_option("--tflops", arguments->tflops, "rate of a rank's products, in TFLOP/s: adds their time")
      ->check(finite_number())
      ->check(CLI::PositiveNumber);
  verb.add_option("--ranks", arguments->ranks,
                  "ranks of the job (`auto` threads: all on one host), or several numbers, as in 1,8,64: the "
                  "plan is of the first, and the work is shared out over each")
      ->check(CLI::Range(1, 65536))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  verb.add_option("--measured", arguments->measured,
                  "what `mezzo profile CONFIG --json` wrote: adds the time of a step on each number of ranks")
      ->check(CLI::ExistingFile);
  verb.add_option("--exchange-us", arguments->exchange_us,
                  "A[,B[,C]]: an exchange of R ranks and W words takes A + (R - 1)(B + C W / 1000) "
                  "microseconds (default: 0)")
      ->check(finite_number())
      ->check(CLI::NonNegativeNumber)
      ->delimiter(',')
      ->expected(1, 3)
      ->allow_extra_args(false);
  verb.add_flag("--json", arguments->json, "as JSON on standard output");
  verb.footer(
      "Needs config.json, the tokenizer and the data, but no weights and no device.\n"
      "Example: mezzo estimate configs/quickstart.yaml --device cuda --memory-gib 80 --tflops 600\n"
      "Example: mezzo profile configs/quickstart.yaml runtime.threads=1 --json > profile.json\n"
      "         mezzo estimate configs/quickstart.yaml runtime.threads=1 --ranks 1,2,4,8,16,1024 \\\n"
      "           --measured profile.json --exchange-us 0,1.2,1.6");
  return [arguments](VerbContext&) {
    Config config = load_config(arguments->config, arguments->overrides, ConfigUse::train);
    for (const Device device : {Device::cpu, Device::cuda, Device::reference}) {
      if (name_of(device) == arguments->device) config.runtime.device = device;
    }
    const Placement placement = plan_placement(config.runtime, arguments->ranks.front());
    const Description description = read_description(config.model.path);
    const WorkInputs inputs(description, config, ConfigUse::train,
                            RunFolder{config.train.output_dir.value()}.initial_adapter());
    ForecastOptions options{.backend = placement.backend_options(), .memory = {}, .ranks = arguments->ranks};
    std::optional<Measured> measured;
    if (!arguments->measured.empty()) {
      measured = read_measured(arguments->measured);
      options.measured = measured->parts;
    }
    std::vector<double> exchange = arguments->exchange_us;
    exchange.resize(3, 0.0);
    options.exchange = {
        .fixed = exchange[0] * 1e-6, .per_rank = exchange[1] * 1e-6, .per_rank_word = exchange[2] * 1e-9};
    if (arguments->memory_gib) {
      constexpr double most_gib = 1u << 20;
      if (*arguments->memory_gib > most_gib) {
        throw UsageError("--memory-gib: found {}, expected at most {}", *arguments->memory_gib, most_gib);
      }
      options.memory = static_cast<std::size_t>(std::llround(*arguments->memory_gib * (1u << 30)));
    }
    const RunForecast run = forecast_run(config, description, inputs, options);

    Json json = to_json(run, placement, options.ranks.front());
    if (measured) check_measured(*measured, json);
    std::string text = to_text(run, placement, options.ranks.front());
    if (arguments->tflops) {
      const double seconds = run.rank_products / (*arguments->tflops * 1e12);
      json["tflops"] = *arguments->tflops;
      json["products_s"] = seconds;
      json["run_products_s"] = seconds * static_cast<double>(config.train.max_steps);
      text += fmt::format(
          "time        products alone at {:.4g} TFLOP/s a rank: {:.4g} s a step, {:.4g} s of {}\n",
          *arguments->tflops, seconds, seconds * static_cast<double>(config.train.max_steps),
          config.train.max_steps);
    }
    text += scaling_text(run.scaling);
    print_text(arguments->json ? json_text(json) + '\n' : text);
    return ExitCode::done;
  };
}

}  // namespace mezzo
