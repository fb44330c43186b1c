#include "mezzo/measure/profile.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* how_timed =
    "operations are timed one by one, the device idle before each and waited for behind it";

/// Null for work that is no product.
Json tflops_of(const WorkTally& tally) {
  return tally.products > 0.0 ? Json(tally.products / tally.seconds * 1e-12) : Json(nullptr);
}

/// Null for work whose bytes are not counted.
Json gb_of(const WorkTally& tally) {
  return tally.bytes > 0.0 ? Json(tally.bytes / tally.seconds * 1e-9) : Json(nullptr);
}

WorkTally products_of(const ProfileResult& result) {
  WorkTally products;
  for (const ProfileResult::Row& row : result.rows) {
    if (row.step.products == 0.0) continue;
    products.seconds += row.step.seconds;
    products.products += row.step.products;
  }
  return products;
}

Json to_json(const ProfileResult& result, const Placement& placement) {
  const WorkTally products = products_of(result);
  Json json = {{"device", result.device},
               {"backend", placement.device_name()},
               {"dtype", placement.dtype_name()},
               {"threads", placement.threads},
               {"steps", result.steps},
               {"probes", result.probes},
               {"probes_per_forward", result.group},
               {"tokens", result.tokens},
               {"weight_bytes", result.weight_bytes},
               {"activation_bytes", result.activation_bytes},
               {"arena_high_water_bytes", result.arena_high_water},
               {"scratch_bytes", result.scratch_bytes},
               {"step_s", result.step},
               {"profiled_step_s", result.profiled_step},
               {"timing", how_timed}};
  Json rows = Json::array();
  for (const ProfileResult::Row& row : result.rows) {
    rows.push_back({{"name", name_of(row.work)},
                    {"calls", row.calls},
                    {"seconds", row.step.seconds},
                    {"share", row.step.seconds / result.profiled_step},
                    {"product_operations", row.step.products},
                    {"low_rank_operations", row.step.low_rank},
                    {"attention_operations", row.step.attention},
                    {"tflops", tflops_of(row.step)},
                    {"bytes", row.step.bytes},
                    {"gb_per_s", gb_of(row.step)}});
  }
  json["operations"] = std::move(rows);
  json["host_s"] = result.host;
  json["host_share"] = result.host / result.profiled_step;
  json["products_s"] = products.seconds;
  json["products_tflops"] = tflops_of(products);
  json["peak_tflops"] = result.peak * 1e-12;
  json["copy_gb_per_s"] = result.copy * 1e-9;
  const StepParts& parts = result.parts;
  Json forwards = Json::array();
  for (const StepParts::Forward& forward : parts.forwards)
    forwards.push_back({{"probes", forward.probes}, {"seconds", forward.seconds}});
  json["parts"] = {{"slice_tokens", parts.tokens}, {"begin_s", parts.begin}, {"forwards", forwards},
                   {"update_s", parts.update},     {"hash_s", parts.hash},   {"host_s", parts.host}};
  json["peak_product"] = {result.peak_size, result.peak_size, result.peak_size};
  return json;
}

std::string to_text(const ProfileResult& result, const Placement& placement) {
  std::string text = fmt::format("{}, {}: {} step{} of {} probes, {} a forward, {:.0f} tokens a probe\n",
                                 result.device, placement.dtype_name(), result.steps,
                                 result.steps == 1 ? "" : "s", result.probes, result.group, result.tokens);
  text += fmt::format("a step: {:.6f} s; {:.6f} s while its operations were timed\n", result.step,
                      result.profiled_step);
  text += fmt::format("({})\n", how_timed);
  text += fmt::format("{:<18}{:>9}{:>12}{:>9}{:>10}{:>10}{:>11}\n", "", "calls", "seconds", "share",
                      "TFLOP/s", "GB/s", "of peak");
  const auto line = [&](std::string_view name, const std::string& calls, const WorkTally& tally) {
    text += fmt::format("{:<18}{:>9}{:>12.6f}{:>8.2f}%", name, calls, tally.seconds,
                        100.0 * tally.seconds / result.profiled_step);
    if (tally.products > 0.0) {
      const double rate = tally.products / tally.seconds;
      text += fmt::format("{:>10.4g}{:>10}{:>10.1f}%", rate * 1e-12, "", 100.0 * rate / result.peak);
    } else if (tally.bytes > 0.0) {
      const double rate = tally.bytes / tally.seconds;
      text += fmt::format("{:>10}{:>10.4g}{:>10.1f}%", "", rate * 1e-9, 100.0 * rate / result.copy);
    }
    text += '\n';
  };
  for (const ProfileResult::Row& row : result.rows)
    line(name_of(row.work), fmt::format("{:.1f}", row.calls), row.step);
  line("host", "", {.seconds = result.host});
  line("all products", "", products_of(result));
  text += fmt::format("peak: {:.4g} TFLOP/s, one product of {} x {} x {} by the device's library\n",
                      result.peak * 1e-12, result.peak_size, result.peak_size, result.peak_size);
  text += fmt::format("copy: {:.4g} GB/s read and written, a matrix's rows gathered in their order\n",
                      result.copy * 1e-9);
  const StepParts& parts = result.parts;
  text += fmt::format("one slice of {} tokens, nothing timed within: {:.6f} s to begin, then a forward of\n",
                      parts.tokens, parts.begin);
  for (const StepParts::Forward& forward : parts.forwards) {
    text += fmt::format("{:>6} probe{} {:>12.6f} s {:>12.6f} s a probe\n", forward.probes,
                        forward.probes == 1 ? " " : "s", forward.seconds,
                        forward.seconds / static_cast<double>(forward.probes));
  }
  return text;
}

}  // namespace

VerbAction add_profile(CLI::App& verb) {
  struct Arguments {
    std::string config;
    std::vector<std::string> overrides;
    std::optional<std::int64_t> steps;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  verb.add_option("--steps", arguments->steps,
                  "steps to take, at most train.max_steps, behind one that does not count, and times that "
                  "each part is measured")
      ->check(CLI::PositiveNumber)
      ->default_str("3");
  verb.add_flag("--json", arguments->json, "as JSON on standard output");
  verb.footer(
      "Takes the config's first steps on one rank and writes nothing.\n"
      "Example: mezzo profile configs/quickstart.yaml --steps 5");
  return [arguments](VerbContext& context) {
    const Config config = load_config(arguments->config, arguments->overrides, ConfigUse::train);
    const std::int64_t steps = arguments->steps.value_or(std::min<std::int64_t>(3, config.train.max_steps));
    if (steps > config.train.max_steps)
      throw UsageError("--steps: found {}, but the run has {} (train.max_steps)", steps,
                       config.train.max_steps);
    const Placement placement = place_together(config.runtime, context.exchange, starting_patience);
    const Inputs inputs(config, ConfigUse::train,
                        RunFolder{config.train.output_dir.value()}.initial_adapter());
    const ProfileResult result = profile(config, inputs, placement.backend_options(), steps);
    print_text(arguments->json ? json_text(to_json(result, placement)) + '\n' : to_text(result, placement));
    return ExitCode::done;
  };
}

}  // namespace mezzo
