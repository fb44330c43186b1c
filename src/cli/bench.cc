#include <algorithm>
#include <charconv>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/measure/benchmark.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

/// "8x128": sequences and tokens of each.
BenchmarkCase read_shape(const std::string& text) {
  const auto number = [&](std::string_view part) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 1 || value > 1'000'000) {
      throw UsageError("--shapes: found '{}', expected BATCHxTOKENS, for example 8x128", text);
    }
    return value;
  };
  const std::size_t cross = std::min(text.find('x'), text.size());
  return {.model = "",
          .sequences = number(std::string_view(text).substr(0, cross)),
          .tokens = number(std::string_view(text).substr(std::min(cross + 1, text.size())))};
}

Json to_json(const BenchmarkCase& benchmark, const BenchmarkOptions& options) {
  return {{"model", benchmark.model},
          {"shape", fmt::format("{}x{}", benchmark.sequences, benchmark.tokens)},
          {"directions", options.directions},
          {"lora_r", options.adapter.r},
          {"lora_alpha", options.adapter.lora_alpha},
          {"low_rank", options.low_rank},
          {"dense", options.dense ? Json(name_of(*options.dense)) : Json()}};
}

void add_result(Json& json, const BenchmarkResult& result) {
  json["layers"] = result.layers;
  json["probes"] = result.probes;
  json["probes_per_forward"] = result.group;
  json["trainables"] = result.trainables;
  json["target_modules"] = result.target_modules;
  json["ranks"] = result.ranks;
  json["trainables_hash"] = fmt::format("{:016x}", result.hash);
  json["step_s"] = result.step;
  json["steps_per_hour"] = 3600.0 / result.step;
  json["tokens_per_s"] = result.tokens_per_second;
  json["update_s"] = result.update;
  json["update_share"] = result.update / result.step;
  json["weight_bytes"] = result.weight_bytes;
  json["trainable_bytes"] = result.trainable_bytes;
  json["arena_bytes"] = result.arena_bytes;
  json["scratch_bytes"] = result.scratch_bytes;
  if (result.exchange) {
    json["exchange_s"] = *result.exchange;
    json["exchange_share"] = *result.exchange / result.step;
    json["skew_s"] = result.skew.value();
  }
  if (result.gemm_bound) {
    json["gemm_bound_s"] = *result.gemm_bound;
    json["step_over_gemm_bound"] = result.step / *result.gemm_bound;
    json["gemm_bound_tflops"] = result.gemm_bound_operations / *result.gemm_bound * 1e-12;
    if (result.gemm_bound_candidates) json["gemm_bound_candidates"] = *result.gemm_bound_candidates;
  }
  if (result.one_by_one) {
    json["one_by_one_s"] = *result.one_by_one;
    json["one_by_one_over_step"] = *result.one_by_one / result.step;
  }
  if (result.upper_half) {
    json["upper_half_s"] = *result.upper_half;
    json["upper_half_over_step"] = *result.upper_half / result.step;
  }
  if (result.base_forward && result.group_forward) {
    json["group_forward_s"] = *result.group_forward;
    json["base_forward_s"] = *result.base_forward;
    json["group_over_base_forward"] = *result.group_forward / *result.base_forward;
  }
}

/// One column of the table: what stands above it and how a result fills it.
struct Column {
  std::string title;
  const char* key;
  double factor;
  int digits;
};

std::vector<Column> columns_of(const BenchmarkOptions& options, int ranks) {
  constexpr double mib = 1.0 / (1u << 20);
  std::vector<Column> columns = {{"step s", "step_s", 1.0, 4},
                                 {"steps/hour", "steps_per_hour", 1.0, 0},
                                 {"tokens/s", "tokens_per_s", 1.0, 0},
                                 {"probes/forward", "probes_per_forward", 1.0, 0}};
  if (options.gemm_bound) {
    columns.push_back({"x GEMM bound", "step_over_gemm_bound", 1.0, 3});
    columns.push_back({"bound TFLOP/s", "gemm_bound_tflops", 1.0, 2});
  }
  if (options.one_by_one) columns.push_back({"one by one", "one_by_one_over_step", 1.0, 2});
  if (options.upper_half) columns.push_back({"upper half", "upper_half_over_step", 1.0, 2});
  if (options.base_forward) columns.push_back({"x base forward", "group_over_base_forward", 1.0, 3});
  if (ranks > 1) {
    columns.push_back({"exchange us", "exchange_s", 1e6, 1});
    columns.push_back({"skew us", "skew_s", 1e6, 0});
  }
  columns.push_back({"update %", "update_share", 100.0, 2});
  columns.push_back({"weights MiB", "weight_bytes", mib, 0});
  columns.push_back({"arena MiB", "arena_bytes", mib, 0});
  columns.push_back({"scratch MiB", "scratch_bytes", mib, 0});
  return columns;
}

std::string title_line(const std::vector<Column>& columns) {
  std::string line = fmt::format("{:<9} {:<8}", "model", "shape");
  for (const Column& column : columns) line += "  " + column.title;
  return line;
}

std::string result_line(const Json& result, const std::vector<Column>& columns) {
  std::string line =
      fmt::format("{:<9} {:<8}", result["model"].get<std::string>(), result["shape"].get<std::string>());
  if (result.contains("error")) return line + "  " + result["error"].get<std::string>();
  for (const Column& column : columns) {
    line += fmt::format("  {:>{}.{}f}", result[column.key].get<double>() * column.factor, column.title.size(),
                        column.digits);
  }
  return line;
}

}  // namespace

VerbAction add_bench(CLI::App& verb) {
  struct Arguments {
    std::vector<std::string> models = benchmark_models();
    std::vector<std::string> shapes = {"1x128", "8x128", "16x256"};
    std::int64_t probes_per_forward = 0;
    std::vector<std::string> targets;
    std::string dense;
    BenchmarkOptions options;
    DeviceOptions device;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  BenchmarkOptions& options = arguments->options;
  verb.add_option("--models", arguments->models, "models with random weights, separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember(benchmark_models()))
      ->capture_default_str();
  verb.add_option("--shapes", arguments->shapes, "batch x tokens, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  verb.add_option("--directions", options.directions, "two-sided directions a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--repetitions", options.repetitions, "steps that a median is taken of")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--probes-per-forward", arguments->probes_per_forward,
                  "probes a forward (default: as many as a run would choose)")
      ->check(CLI::PositiveNumber);
  verb.add_option("--layers", options.layers, "cut the models to this many layers")
      ->check(CLI::PositiveNumber);
  verb.add_option("--lora-r", options.adapter.r, "rank of the low-rank terms")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--target-modules", arguments->targets,
                  "modules that they are on, separated by commas, or all-linear (default: query and value)")
      ->delimiter(',');
  verb.add_option("--low-rank", options.low_rank,
                  "not LoRA, but all linear layers' weights along noise of this rank")
      ->check(CLI::PositiveNumber);
  verb.add_option("--dense", arguments->dense,
                  "not LoRA, but all tensors along noise of each of their elements, held in this")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  add_device_options(verb, arguments->device);
  verb.add_flag("--one-by-one", options.one_by_one, "also steps of one probe a forward");
  verb.add_flag("--upper-half", options.upper_half, "also steps with the upper half of the layers perturbed");
  verb.add_flag("--base-forward", options.base_forward,
                "also a group's forward against the base model's over the same rows");
  verb.add_flag("--gemm-bound,--floor", options.gemm_bound,
                "also the base products alone, in turn with the steps");
  verb.add_flag("--json", arguments->json, "as JSON on standard output");
  verb.footer(
      "A step is of LoRA, alpha 16, with a language-model loss on all tokens. Under mpirun its probes are "
      "shared out to the ranks.\n"
      "Example: mezzo bench --models gpt2 --shapes 1x128,8x128 --gemm-bound --one-by-one");
  return [arguments](VerbContext& context) {
    BenchmarkOptions& chosen = arguments->options;
    Exchange& exchange = context.exchange;
    if (exchange.size() > 1 &&
        (chosen.one_by_one || chosen.upper_half || chosen.base_forward || chosen.gemm_bound)) {
      throw UsageError(
          "--one-by-one, --upper-half, --base-forward and --gemm-bound measure one rank, but {} were started",
          exchange.size());
    }
    if (!arguments->dense.empty())
      chosen.dense = arguments->dense == name_of(MasterType::bf16) ? MasterType::bf16 : MasterType::fp32;
    if ((chosen.low_rank > 0 || chosen.dense) && chosen.upper_half) {
      throw UsageError("--upper-half: is of LoRA alone, found {}", chosen.dense ? "--dense" : "--low-rank");
    }
    if (chosen.low_rank > 0 && chosen.dense)
      throw UsageError("--dense: expected it or --low-rank, found both");
    const Placement placement = place_together(arguments->device.runtime(), exchange, starting_patience);
    chosen.backend = placement.backend_options();
    chosen.adapter.all_linear = arguments->targets == std::vector<std::string>{"all-linear"};
    if (!chosen.adapter.all_linear) chosen.adapter.target_modules = arguments->targets;
    if (arguments->probes_per_forward > 0) chosen.probes_per_forward = arguments->probes_per_forward;
    std::vector<BenchmarkCase> cases;
    for (const std::string& model : arguments->models) {
      for (const std::string& shape : arguments->shapes) {
        cases.push_back(read_shape(shape));
        cases.back().model = model;
      }
    }

    for (const std::string& model : arguments->models) {  // before another one is measured
      static_cast<void>(adapted_modules(benchmark_model(model, chosen.layers), chosen.adapter));
    }

    const std::vector<Column> columns = columns_of(chosen, exchange.size());
    Json all = {{"device", nullptr},
                {"backend", placement.device_name()},
                {"dtype", placement.dtype_name()},
                {"threads", placement.threads}};
    {
      const std::unique_ptr<Backend> backend = make_backend(chosen.backend);
      all["device"] = backend->device();
      all["fingerprint"] = backend->fingerprint();
    }
    all["results"] = Json::array();
    const bool leads = exchange.rank() == 0;
    if (leads && !arguments->json) {
      print_text(fmt::format("{}, {}\n{}\n", all["device"].get<std::string>(), placement.dtype_name(),
                             title_line(columns)));
      std::cout.flush();
    }
    bool failed = false;
    for (const BenchmarkCase& benchmark : cases) {
      Json json = to_json(benchmark, chosen);
      context.log.status(
          fmt::format("{} {}", json["model"].get<std::string>(), json["shape"].get<std::string>()));
      try {
        add_result(json, run_benchmark(benchmark, chosen, exchange));
      } catch (const DeviceError& error) {  // too large for this device, say: the others may fit
        if (exchange.size() > 1) throw;     // the other ranks are in the middle of it
        failed = true;
        json["error"] = error.what();
      }
      context.log.status("");
      if (leads && !arguments->json) {
        print_text(result_line(json, columns) + '\n');
        std::cout.flush();
      }
      all["results"].push_back(std::move(json));
    }
    if (leads && arguments->json) std::cout << json_text(all) << '\n';
    return failed ? ExitCode::error : ExitCode::done;
  };
}

}  // namespace mezzo
