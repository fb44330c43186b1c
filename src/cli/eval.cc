#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/train/evaluator.h"

namespace mezzo {

VerbAction add_eval(CLI::App& verb) {
  struct Arguments {
    std::string config, adapter, snapshot;
    std::vector<std::string> overrides;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  auto* adapter =
      verb.add_option("--adapter", arguments->adapter, "PEFT adapter (default: the base model alone)")
          ->transform(model_path());
  verb.add_option("--snapshot", arguments->snapshot, "a run's snapshot")->excludes(adapter);
  verb.add_flag("--json", arguments->json, "results as JSON on standard output");
  verb.footer("Example: mezzo eval configs/quickstart.yaml --adapter runs/quickstart/adapter --json");
  return [arguments](VerbContext& context) {
    Exchange& exchange = context.exchange;
    Config config;
    std::optional<Inputs> inputs;
    std::optional<AdapterSource> source;
    ModelOnDevice loaded;
    std::optional<Evaluator> evaluator;
    together(exchange, starting_patience,
             [&] { config = load_config(arguments->config, arguments->overrides, ConfigUse::eval); });
    const Patience patience = loading_patience(config.runtime);
    const Placement placement = place_together(config.runtime, exchange, patience);
    together(exchange, patience, [&] {
      Config base = config;
      base.lora.adapter.reset();  // of a training run; what is evaluated is named on the command line
      if (!arguments->snapshot.empty()) source = AdapterSource::from_snapshot(arguments->snapshot);
      inputs.emplace(base, ConfigUse::eval, "");
      if (!arguments->adapter.empty()) {
        source = AdapterSource::from_adapter(arguments->adapter, inputs->files.description);
      }
      evaluator.emplace(inputs->validation, inputs->task);
      loaded = load_model(inputs->files, source ? &*source : nullptr, placement);
    });
    ProbeRunner& runner = loaded.model->runner;
    runner.reserve(evaluator->largest(), 1);
    const Evaluation result = evaluator->run(runner, exchange, patience);
    if (exchange.rank() != 0) return ExitCode::done;
    if (arguments->json) {
      nlohmann::ordered_json json = {{"examples", result.examples}};
      json["accuracy"] =
          result.accuracy ? nlohmann::ordered_json(*result.accuracy) : nlohmann::ordered_json(nullptr);
      json["loss"] = result.loss;
      std::cout << json.dump() << '\n';
    } else {
      if (result.accuracy) std::cout << fmt::format("accuracy {:.4f}, ", *result.accuracy);
      std::cout << fmt::format("loss {:.4f} on {} examples\n", result.loss, result.examples);
    }
    return ExitCode::done;
  };
}

}  // namespace mezzo
