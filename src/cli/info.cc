#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/core/error.h"
#include "mezzo/core/printable.h"
#include "mezzo/io/files.h"
#include "mezzo/model/family.h"
#include "mezzo/train/planner.h"
#include "mezzo/train/reporter.h"

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

/// The updates of a layer's modules.
struct LayerUpdate {
  std::int64_t layer = 0;  ///< -1: of none
  std::vector<UpdateSize> modules;

  double update() const { return norm_over(&UpdateSize::update); }
  double weight() const { return norm_over(&UpdateSize::weight); }
  double ratio() const { return update() / weight(); }

 private:
  /// Of all modules' matrices together.
  double norm_over(double UpdateSize::*norm) const {
    double squares = 0.0;
    for (const UpdateSize& module : modules) squares += module.*norm * (module.*norm);
    return std::sqrt(squares);
  }
};

/// How far the run in the folder `path` has moved its weights since the step at which its files begin. Reads
/// the base model.
std::vector<LayerUpdate> updates_of(const AdapterSource& source, const std::string& path, Logger& log) {
  const ModelFiles files(source.base_model);
  source.space->check_model(files.description, files.directory);
  // Where trainables are the model's own weights, start_state() looks whether these are the run's.
  if (source.space->has_adapter()) warn_of_another_base(source, files, log);
  const RunState start = start_state({path}, *source.run);
  std::map<std::int64_t, LayerUpdate> layers;
  for (const UpdateSize& size : source.space->update_sizes(files, start.values, source.state.values)) {
    LayerUpdate& layer = layers[size.layer];
    layer.layer = size.layer;
    layer.modules.push_back(size);
  }
  std::vector<LayerUpdate> updates;
  for (const auto& [number, layer] : layers) updates.push_back(layer);
  return updates;
}

Json to_json(const std::vector<LayerUpdate>& updates) {
  Json list = Json::array();
  for (const LayerUpdate& layer : updates) {
    Json modules = Json::object();
    for (const UpdateSize& module : layer.modules) modules[module.module] = module.update / module.weight;
    list.push_back({{"layer", layer.layer < 0 ? Json(nullptr) : Json(layer.layer)},
                    {"update_norm", layer.update()},
                    {"weight_norm", layer.weight()},
                    {"update_to_weight", layer.ratio()},
                    {"modules", modules}});
  }
  return list;
}

void print_table(const std::vector<LayerUpdate>& updates) {
  std::vector<std::vector<std::string>> rows = {{"layer", "update/weight"}};
  for (const LayerUpdate& layer : updates) {
    rows.push_back(
        {layer.layer < 0 ? "-" : fmt::format("{}", layer.layer), fmt::format("{:.3g}", layer.ratio())});
  }
  for (const std::string& line : aligned(rows)) print_text(line + '\n');
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
    bool update_size = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("path", arguments->path, "a model, an adapter, a snapshot or a run's folder")
      ->required()
      ->transform(model_path());
  verb.add_flag("--json", arguments->json, "as JSON on standard output");
  verb.add_flag("--update-size", arguments->update_size,
                "of a run: how far its weights have moved since its start, against their size, by layer; "
                "reads the base model");
  verb.footer("Example: mezzo info runs/quickstart --json");
  return [arguments](VerbContext& context) {
    const std::string& path = arguments->path;
    Json json;
    std::vector<LayerUpdate> updates;
    const std::optional<AdapterSource> source =
        AdapterSource::find(path, AdapterSource::OfRun::newest, context.log);
    if (arguments->update_size && !(source && source->kind == "run")) {
      throw UsageError("--update-size: {} is not a run's folder, which alone says where training began",
                       path);
    }
    if (source) {
      json = {{"kind", source->kind}, {"path", path}};
      add_adapter(json, *source);
      if (arguments->update_size) updates = updates_of(*source, path, context.log);
    } else if (file_exists(path + "/config.json")) {
      json = describe_model(path);
    } else {
      throw InputError(
          "{}: found none of config.json, adapter_config.json and trajectory, expected the folder of a "
          "model, an adapter or a run, or a snapshot",
          path);
    }
    if (arguments->json) {
      if (arguments->update_size) json["update_sizes"] = to_json(updates);
      std::cout << json_text(json) << '\n';
    } else {
      for (const auto& [key, value] : json.items()) {
        const std::string text = value.is_string() ? value.get<std::string>() : json_text(value);
        print_text(fmt::format("{:<22} {}\n", key, printable(text)));
      }
      if (arguments->update_size) print_table(updates);
    }
    return ExitCode::done;
  };
}

}  // namespace mezzo
