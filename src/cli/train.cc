#include <memory>

#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/train/trainer.h"

namespace mezzo {

VerbAction add_train(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
    TrainOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  verb.add_flag("--overwrite", arguments->options.overwrite, "replace the run that output_dir holds");
  verb.add_flag("--show-config", arguments->options.show_config,
                "print the whole resolved config, not only what differs from the defaults");
  verb.footer("Example: mpirun -np 2 mezzo train configs/quickstart.yaml train.max_steps=100");
  return [arguments](VerbContext& context) {
    Config config;
    together(context.exchange, starting_patience,
             [&] { config = load_config(arguments->config, arguments->overrides, ConfigUse::train); });
    const StopSignal stop;
    const TrainResult result = train(config, arguments->options, context.exchange, stop, context.log);
    return result == TrainResult::stopped ? ExitCode::stopped : ExitCode::done;
  };
}

}  // namespace mezzo
