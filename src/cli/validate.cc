#include <fmt/ranges.h>

#include <memory>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/data/reward.h"
#include "mezzo/train/reporter.h"

namespace mezzo {

namespace {

/// What gives the rewards: a program is started, and ended before it is asked anything.
std::string checked_reward(const Config& config) {
  const RewardConfig& reward = config.data.task.reward;
  make_grader(reward, {.max_new_tokens = config.generation.max_new_tokens});
  if (reward.type) return std::string(name_of(*reward.type));
  return fmt::format("{}: can be started", fmt::join(reward.command, " "));
}

}  // namespace

VerbAction add_validate(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  verb.footer("Example: mezzo validate configs/quickstart.yaml");
  return [arguments](VerbContext& context) {
    const Config config = load_config(arguments->config, arguments->overrides, ConfigUse::train);
    const RunFolder folder{config.train.output_dir.value()};
    const Placement placement = place_together(config.runtime, context.exchange, starting_patience);
    const Inputs inputs(config, ConfigUse::train, folder.initial_adapter());
    context.log.info("model      {}: {} layers, vocabulary {}", inputs.files.directory,
                     inputs.files.description.layers, inputs.files.description.vocabulary);
    context.log.info("data       {} training examples, {} validation examples", inputs.train->size(),
                     inputs.validation.size());
    for (const std::string& warning : inputs.warnings) context.log.warning("{}", warning);
    Reporter(context.log, 0, 0).first_example(inputs.task, *inputs.tokenizer, *inputs.train->at(0, 1)[0]);
    if (inputs.task.generates()) context.log.info("reward     {}", checked_reward(config));
    const std::vector<TrainableSpec>& trainables = inputs.space->trainables();
    context.log.info("adapter    {} trainables, {} parameters", trainables.size(), element_count(trainables));
    context.log.info("device     {} {}", placement.device_name(), placement.dtype_name());
    if (const ResumeFrom& from = config.train.resume_from_checkpoint;
        from.kind == ResumeFrom::Kind::snapshot) {
      context.log.info("snapshot   {}: step {}", from.path, read_snapshot(from.path).state.step);
    }
    if (is_run(folder.path)) {
      context.log.info("output_dir {}: holds a run of {} finished steps", folder.path,
                       scan_trajectory(folder.trajectory()).end_step);
    }
    context.log.info("{}: all inputs are good", arguments->config);
    return ExitCode::done;
  };
}

}  // namespace mezzo
