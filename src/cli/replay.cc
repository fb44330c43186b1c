#include <memory>
#include <optional>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/model/family.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

VerbAction add_replay(CLI::App& verb) {
  struct Arguments {
    std::string run, adapter, merged, model;
    std::optional<std::uint64_t> step;
    bool overwrite = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("run", arguments->run, "a run's folder")->required();
  verb.add_option("--step", arguments->step, "steps to replay (default: all)")->check(whole_number());
  auto* adapter = verb.add_option("--adapter", arguments->adapter, "folder for a PEFT adapter");
  verb.add_option("--merged", arguments->merged, "folder for a whole Hugging Face model (fp32)")
      ->excludes(adapter);
  verb.add_option("--model", arguments->model, "base model, where it has moved since")
      ->transform(model_path());
  verb.add_flag("--overwrite", arguments->overwrite, "write into a folder that is not empty");
  verb.footer("Example: mezzo replay runs/quickstart --step 50 --adapter at-step-50");
  return [arguments](VerbContext& context) {
    const std::string& target = arguments->adapter.empty() ? arguments->merged : arguments->adapter;
    if (target.empty()) throw UsageError("replay: give --adapter DIR or --merged DIR");
    check_target(target, arguments->overwrite);
    const RunFolder folder{arguments->run};
    if (!is_run(arguments->run)) throw UsageError("{}: holds no trajectory", arguments->run);
    const TrajectoryScan scan = scan_trajectory(folder.trajectory());
    if (scan.end.kind != RecordEnd::Kind::clean) context.log.warning("{}", scan.end.reason);
    RunHeader header = scan.header;
    const std::uint64_t step = arguments->step.value_or(scan.end_step);
    if (step > scan.end_step || step < header.start_step) {
      throw UsageError("--step: found {}, expected {} to {}, the steps in {}", step, header.start_step,
                       scan.end_step, folder.trajectory());
    }
    if (!arguments->model.empty()) header.base_model = arguments->model;
    const std::string& base = header.base_model;
    const Description description = read_description(base);
    header.space->check_model(description, base);
    const RunState state = replayed(folder.trajectory(), header, start_state(folder, header), step);
    if (!arguments->adapter.empty()) {
      header.space->write_adapter(target, description, state.values, base);
    } else {
      check_other_than_base(target, base);
      header.space->write_merged(ModelFiles(base), state.values, DType::f32, target, arguments->overwrite);
    }
    write_trainer_state(target, step, std::nullopt);
    context.log.info("{}: the trainables after step {}, without a forward", target, step);
    return ExitCode::done;
  };
}

}  // namespace mezzo
