#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/core/error.h"
#include "mezzo/core/printable.h"
#include "mezzo/io/files.h"
#include "mezzo/model/family.h"
#include "mezzo/train/planner.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

/// Forwards over a batch that a run's steps up to `step` took: what methods are compared at. Evaluations are
/// not counted.
std::uint64_t forwards_of(const RunHeader& run, std::uint64_t step) {
  constexpr std::array keys{"zo.directions", "zo.estimator", "zo.step_limit",
                            "train.gradient_accumulation_steps"};
  std::vector<IdentityEntry> entries = values_before_records();  // which the record's own follow
  entries.insert(entries.end(), run.identity.begin(), run.identity.end());
  std::erase_if(entries,
                [&](const IdentityEntry& entry) { return std::ranges::find(keys, entry.key) == keys.end(); });
  Config config;
  adopt_unwritten(config, entries, "the run's record");
  return step * static_cast<std::uint64_t>(probes_of_step(config.zo)) *
         static_cast<std::uint64_t>(config.train.gradient_accumulation_steps);
}

void add_adapter(Json& json, const AdapterSource& source) {
  json["step"] = source.step ? Json(*source.step) : Json(nullptr);
  if (source.best) {
    json["best_step"] = source.best->best()->steps_done;
    json["best_metric"] = source.best->best()->value;
    json["metric_for_best_model"] = source.best->metric();
  }
  json["trainables_sha256"] = trainables_sha256(source.state.values);
  json["trainables"] = source.space->trainables().size();
  json["parameters"] = source.state.values.size();
  json["space"] = source.space->kind();
  json.update(source.space->constants());
  json["base_model"] = source.base_model;
  if (!source.run) return;
  json["base_model_hash"] = source.run->base_hash;
  json["optimizer"] = source.run->optimizer->kind();
  if (source.step) json["forwards"] = forwards_of(*source.run, *source.step);
  Json identity = Json::object();
  for (const IdentityEntry& entry : source.run->identity) identity[entry.key] = entry.value;
  json["identity"] = identity;
  json["fingerprint"] = source.run->fingerprint;
}

Json describe_model(const std::string& path) {
  const ModelFiles files(path);
  const Description& model = files.description;
  const ParameterCount parameters = count_parameters(decoder_spec(model));
  Json json = {{"kind", "model"},
               {"path", path},
               {"family", model.family},
               {"layers", model.layers},
               {"hidden", model.hidden},
               {"heads", model.heads},
               {"kv_heads", model.kv_heads},
               {"head_dim", model.head_dim},
               {"intermediate", model.intermediate},
               {"vocabulary", model.vocabulary},
               {"max_positions", model.max_positions},
               {"parameters", parameters.all}};
  if (model.mixture) {
    json["experts"] = model.mixture->rule.experts;
    json["experts_per_token"] = model.mixture->rule.chosen;
    json["expert_intermediate"] = model.mixture->intermediate;
    json["dense_layers"] = model.mixture->dense_layers;
    json["active_parameters"] = parameters.active;
  }
  return json;
}

}  // namespace

VerbAction add_info(CLI::App& verb) {
  struct Arguments {
    std::string path;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("path", arguments->path, "a model, an adapter, a snapshot or a run's folder")
      ->required()
      ->transform(model_path());
  verb.add_flag("--json", arguments->json, "as JSON on standard output");
  verb.footer("Example: mezzo info runs/quickstart --json");
  return [arguments](VerbContext& context) {
    const std::string& path = arguments->path;
    Json json;
    if (const std::optional<AdapterSource> source =
            AdapterSource::find(path, AdapterSource::OfRun::newest, context.log)) {
      json = {{"kind", source->kind}, {"path", path}};
      add_adapter(json, *source);
    } else if (file_exists(path + "/config.json")) {
      json = describe_model(path);
    } else {
      throw InputError(
          "{}: found none of config.json, adapter_config.json and trajectory, expected the folder of a "
          "model, an adapter or a run, or a snapshot",
          path);
    }
    if (arguments->json) {
      std::cout << json_text(json) << '\n';
    } else {
      for (const auto& [key, value] : json.items()) {
        const std::string text = value.is_string() ? value.get<std::string>() : json_text(value);
        print_text(fmt::format("{:<22} {}\n", key, printable(text)));
      }
    }
    return ExitCode::done;
  };
}

}  // namespace mezzo
