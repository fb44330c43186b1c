#include <memory>
#include <optional>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/model/family.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

VerbAction add_replay(CLI::App& verb) {
  struct Arguments {
    std::string run, adapter, model;
    std::optional<std::uint64_t> step;
    bool overwrite = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("run", arguments->run, "a run's folder")->required();
  verb.add_option("--step", arguments->step, "steps to replay (default: all)")->check(whole_number());
  verb.add_option("--adapter", arguments->adapter, "folder for a PEFT adapter")->required();
  verb.add_option("--model", arguments->model, "base model, where it has moved since")
      ->transform(model_path());
  verb.add_flag("--overwrite", arguments->overwrite, "write into a folder that is not empty");
  verb.footer("Example: mezzo replay runs/quickstart --step 50 --adapter at-step-50");
  return [arguments](VerbContext& context) {
    check_target(arguments->adapter, arguments->overwrite);
    const RunFolder folder{arguments->run};
    if (!is_run(arguments->run)) throw UsageError("{}: holds no trajectory", arguments->run);
    const TrajectoryScan scan = scan_trajectory(folder.trajectory());
    if (scan.end.kind != RecordEnd::Kind::clean) context.log.warning("{}", scan.end.reason);
    const RunHeader& header = scan.header;
    const std::uint64_t step = arguments->step.value_or(scan.end_step);
    if (step > scan.end_step || step < header.start_step) {
      throw UsageError("--step: found {}, expected {} to {}, the steps in {}", step, header.start_step,
                       scan.end_step, folder.trajectory());
    }
    const std::string& base = arguments->model.empty() ? header.base_model : arguments->model;
    const Description description = read_description(base);
    header.space->check_model(description, base);
    const RunState state = replayed(folder.trajectory(), header, start_state(folder, header), step);
    header.space->write_adapter(arguments->adapter, description, state.values, base);
    write_trainer_state(arguments->adapter, step, std::nullopt);
    context.log.info("{}: the trainables after step {}, without a forward", arguments->adapter, step);
    return ExitCode::done;
  };
}

}  // namespace mezzo
