#include <memory>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/model/family.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

namespace {

DType dtype_from(const std::string& name) {
  if (name == "bf16") return DType::bf16;
  if (name == "fp16") return DType::f16;
  return DType::f32;
}

/// That the source is a run's best step, if it is.
std::optional<BestNote> note_of(const AdapterSource& source) {
  if (!source.best) return std::nullopt;
  return BestNote{.metric = source.best->metric(), .value = source.best->best()->value};
}

}  // namespace

VerbAction add_export(CLI::App& verb) {
  struct Arguments {
    std::string source, adapter, merged, model;
    std::string dtype = "fp32";
    bool overwrite = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("source", arguments->source,
                  "a run's folder (its best step where that is its result, else its newest), "
                  "a snapshot or a PEFT adapter")
      ->required();
  auto* adapter = verb.add_option("--adapter", arguments->adapter, "folder for a PEFT adapter (F32)");
  auto* merged = verb.add_option("--merged", arguments->merged, "folder for a whole Hugging Face model");
  adapter->excludes(merged);
  verb.add_option("--dtype", arguments->dtype, "of the merged model")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16"}))
      ->needs(merged)
      ->capture_default_str();
  verb.add_option("--model", arguments->model, "base model, where it has moved since")
      ->transform(model_path());
  verb.add_flag("--overwrite", arguments->overwrite, "write into a folder that is not empty");
  verb.footer("Example: mezzo export runs/quickstart --merged merged --dtype bf16");
  return [arguments](VerbContext& context) {
    const std::string& target = arguments->adapter.empty() ? arguments->merged : arguments->adapter;
    if (target.empty()) throw UsageError("export: give --adapter DIR or --merged DIR");
    check_target(target, arguments->overwrite);
    std::optional<AdapterSource> source =
        AdapterSource::find(arguments->source, AdapterSource::OfRun::result, context.log);
    if (!source)
      throw UsageError("{}: expected a run's folder, a snapshot or a PEFT adapter", arguments->source);
    const std::string base = arguments->model.empty() ? source->base_model : arguments->model;
    if (base.empty()) throw UsageError("{}: names no base model; give --model DIR", arguments->source);
    const Description description = read_description(base);
    if (source->run) {
      source->space->check_model(description, base);
    } else {
      source = AdapterSource::from_adapter(arguments->source, description);
    }
    if (!arguments->adapter.empty()) {
      source->space->write_adapter(target, description, source->state.values, base);
      if (source->step) write_trainer_state(target, *source->step, note_of(*source));
      else remove_trainer_state(target);  // of what was here before
    } else {
      check_other_than_base(target, base);
      const ModelFiles files(base);
      warn_of_another_base(*source, files, context.log);
      source->space->write_merged(files, source->state.values, dtype_from(arguments->dtype), target,
                                  arguments->overwrite);
    }
    context.log.info("{}: written{}", target, source->step ? fmt::format(", of step {}", *source->step) : "");
    return ExitCode::done;
  };
}

}  // namespace mezzo
