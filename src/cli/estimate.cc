#include "mezzo/train/estimate.h"

#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
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

Json to_json(const RunEstimate& run, const Placement& placement, int ranks) {
  Json json = {{"backend", placement.device_name()},
               {"dtype", placement.dtype_name()},
               {"threads", placement.threads},
               {"ranks", ranks},
               {"layers", run.layers},
               {"first_perturbed_layer", run.first_perturbed_layer},
               {"trainables", run.trainables},
               {"weight_bytes", run.weight_bytes},
               {"trainable_bytes", run.trainable_bytes},
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
                           {"reads", run.largest.reads},
                           {"questions", run.largest.questions},
                           {"longest", run.largest.longest}};
  json["counted_steps"] = run.counted_steps;
  json["operations"] = {{"step", run.step.total()},
                        {"products", run.step.products},
                        {"low_rank", run.step.low_rank},
                        {"attention", run.step.attention},
                        {"rank_products", run.rank_products}};
  return json;
}

std::string to_text(const RunEstimate& run, const Placement& placement, int ranks) {
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / (1u << 20); };
  std::string text = fmt::format("device      {} {}, {} rank{}", placement.device_name(),
                                 placement.dtype_name(), ranks, ranks == 1 ? "" : "s");
  if (placement.device == DeviceKind::cpu)
    text += fmt::format(" of {} thread{}", placement.threads, placement.threads == 1 ? "" : "s");
  text += fmt::format("\nmodel       {} layers, {} perturbed from layer {} on; {} trainable numbers\n",
                      run.layers, run.layers - run.first_perturbed_layer, run.first_perturbed_layer,
                      run.trainables);
  text += fmt::format("memory      {:.1f} MiB a rank", mib(run.total_bytes()));
  if (run.memory) {
    text += fmt::format(" of {:.1f} MiB{}", mib(*run.memory),
                        run.total_bytes() <= *run.memory ? "" : ": it does not fit");
  }
  text +=
      fmt::format("\n            weights {:.1f}, trainables {:.1f}, activations {:.1f}, scratch {:.1f} MiB\n",
                  mib(run.weight_bytes), mib(run.trainable_bytes), mib(run.plan.activation_bytes),
                  mib(run.plan.scratch_bytes));
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

}  // namespace

VerbAction add_estimate(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
    std::string device;
    std::optional<double> memory_gib, tflops;
    int ranks = 1;
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
      ->check(CLI::PositiveNumber);
  verb.add_option("--tflops", arguments->tflops, "rate of a rank's products, in TFLOP/s: adds their time")
      ->check(CLI::PositiveNumber);
  verb.add_option("--ranks", arguments->ranks, "ranks of the job, all on one host")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  verb.add_flag("--json", arguments->json, "as JSON on standard output");
  verb.footer(
      "Needs config.json, the tokenizer and the data, but no weights and no device.\n"
      "Example: mezzo estimate configs/quickstart.yaml --device cuda --memory-gib 80 --tflops 600");
  return [arguments](VerbContext& context) {
    if (context.exchange.size() > 1) {
      throw UsageError("estimate takes --ranks, but {} ranks were started", context.exchange.size());
    }
    Config config = load_config(arguments->config, arguments->overrides, ConfigUse::train);
    for (const Device device : {Device::cpu, Device::cuda, Device::reference}) {
      if (name_of(device) == arguments->device) config.runtime.device = device;
    }
    const Placement placement = plan_placement(config.runtime, arguments->ranks);
    const Description description = read_description(config.model.path);
    const WorkInputs inputs(description, config, ConfigUse::train,
                            RunFolder{config.train.output_dir.value()}.initial_adapter());
    EstimateOptions options{.backend = placement.backend_options(), .memory = {}, .ranks = arguments->ranks};
    if (arguments->memory_gib) {
      constexpr double most_gib = 1u << 20;
      if (*arguments->memory_gib > most_gib) {
        throw UsageError("--memory-gib: found {}, expected at most {}", *arguments->memory_gib, most_gib);
      }
      options.memory = static_cast<std::size_t>(std::llround(*arguments->memory_gib * (1u << 30)));
    }
    const RunEstimate run = estimate_run(config, description, inputs, options);

    Json json = to_json(run, placement, arguments->ranks);
    std::string text = to_text(run, placement, arguments->ranks);
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
    std::cout << (arguments->json ? json.dump() + '\n' : text);
    if (!std::cout.flush()) throw IoError("standard output: cannot write");
    return ExitCode::done;
  };
}

}  // namespace mezzo
