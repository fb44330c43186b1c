#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzo/cli/common.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/io/files.h"
#include "mezzo/train/answers.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/reporter.h"

namespace mezzo {

namespace {

using Json = nlohmann::ordered_json;

/// Answers in a model's own words, against the right ones.
struct Written {
  std::vector<std::string> texts;  ///< one an example; empty where none were asked for
  double exact_match = 0.0;        ///< part of the examples
  double f1 = 0.0;                 ///< mean of the examples
};

Written scored(std::vector<std::string> texts, std::span<const Example> examples) {
  Written written;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    written.exact_match += exact_match(texts[i], examples[i].answers) ? 1.0 : 0.0;
    written.f1 += token_f1(texts[i], examples[i].answers);
  }
  written.exact_match /= static_cast<double>(texts.size());
  written.f1 /= static_cast<double>(texts.size());
  written.texts = std::move(texts);
  return written;
}

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json json_of(const Evaluation& result, const Written& written, const Task& task) {
  Json json = {
      {"examples", result.examples}, {"accuracy", number_or_null(result.accuracy)}, {"loss", result.loss}};
  if (result.reward) json["reward"] = *result.reward;
  if (!written.texts.empty()) {
    json["exact_match"] = written.exact_match;
    json["token_f1"] = written.f1;
  }
  if (!result.f1) return json;
  json["f1"] = *result.f1;
  Json& classes = json["classes"] = Json::array();
  for (std::size_t c = 0; c < result.classes.size(); ++c) {
    const ClassScores& scores = result.classes[c];
    classes.push_back({{"label", task.labels()[c]},
                       {"examples", scores.examples},
                       {"predicted", scores.predicted},
                       {"correct", scores.correct},
                       {"precision", scores.precision()},
                       {"recall", scores.recall()},
                       {"f1", scores.f1()}});
  }
  return json;
}

std::string text_of(const Evaluation& result, const Written& written, const Task& task) {
  std::string text;
  if (result.accuracy) text += fmt::format("accuracy {:.4f}, ", *result.accuracy);
  if (result.f1) text += fmt::format("macro F1 {:.4f}, ", *result.f1);
  if (result.reward)
    return text + fmt::format("reward {:.4f} on {} examples\n", *result.reward, result.examples);
  if (!written.texts.empty())
    text += fmt::format("exact match {:.4f}, token F1 {:.4f}, ", written.exact_match, written.f1);
  text += fmt::format("loss {:.4f} on {} examples\n", result.loss, result.examples);
  if (result.classes.empty()) return text;
  std::vector<std::vector<std::string>> rows = {
      {"class", "examples", "predicted", "correct", "precision", "recall", "F1"}};
  for (std::size_t c = 0; c < result.classes.size(); ++c) {
    const ClassScores& scores = result.classes[c];
    rows.push_back({task.labels()[c], std::to_string(scores.examples), std::to_string(scores.predicted),
                    std::to_string(scores.correct), fmt::format("{:.4f}", scores.precision()),
                    fmt::format("{:.4f}", scores.recall()), fmt::format("{:.4f}", scores.f1())});
  }
  for (const std::string& line : aligned(rows)) text += line + '\n';
  return text;
}

/// What a task with options made of an example.
Json choice_of(const Example& example, const std::vector<double>& scores, const Task& task) {
  const auto name_of_option = [&](std::int32_t option) {
    if (option < 0) return Json(nullptr);
    return task.classifies() ? Json(task.labels()[static_cast<std::size_t>(option)]) : Json(option);
  };
  return {{"label", name_of_option(example.label)},
          {"prediction", name_of_option(best_option(scores))},
          {"scores", scores}};
}

Json answer_of(const Example& example, const std::string& text) {
  return {{"answers", example.answers},
          {"prediction", text},
          {"exact_match", exact_match(text, example.answers)},
          {"f1", token_f1(text, example.answers)}};
}

Json reward_of(const GradedCompletion& completion) {
  return {{"completion", completion.text},
          {"tokens", completion.tokens},
          {"reward", number_or_null(completion.reward)}};
}

/// JSON lines, one an example in their order.
std::string predictions_of(const Evaluation& result, const Written& written, const Inputs& inputs) {
  std::string lines;
  for (std::size_t i = 0; i < inputs.validation.size(); ++i) {
    const Example& example = inputs.validation[i];
    Json line = {{"example", i}, {"prompt", inputs.tokenizer->decode(example.prompt)}};
    if (inputs.task.generates()) {
      line.update(reward_of(result.completions[i]));
    } else {
      line.update(inputs.task.chooses() ? choice_of(example, result.scores[i], inputs.task)
                                        : answer_of(example, written.texts[i]));
    }
    lines += json_text(line) + '\n';
  }
  return lines;
}

}  // namespace

VerbAction add_eval(CLI::App& verb) {
  struct Arguments {
    std::string config, adapter, snapshot, predictions;
    std::vector<std::string> overrides, stops;
    std::int64_t new_tokens = 0;
    bool json = false;
    bool overwrite = false;
  };
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("config", arguments->config, "YAML config")->required();
  verb.add_option("overrides", arguments->overrides, "a.b=value, put over the config");
  auto* adapter =
      verb.add_option("--adapter", arguments->adapter, "PEFT adapter (default: the base model alone)")
          ->transform(model_path());
  verb.add_option("--snapshot", arguments->snapshot, "a run's snapshot")->excludes(adapter);
  verb.add_option("--predictions", arguments->predictions,
                  "file for JSON lines, one an example: prompt, label, prediction, scores of the options; of "
                  "written answers: prompt, answers, prediction, exact_match, f1");
  auto* new_tokens =
      verb.add_option("--max-new-tokens", arguments->new_tokens,
                      "of a completion task: also write answers, greedily, of so many tokens at most, and "
                      "compare them with the right ones")
          ->check(CLI::PositiveNumber);
  verb.add_option("--stop", arguments->stops, "text that ends a written answer; may be repeated")
      ->needs(new_tokens);
  verb.add_flag("--overwrite", arguments->overwrite, "replace the file of --predictions");
  verb.add_flag("--json", arguments->json, "results as JSON on standard output");
  verb.footer("Example: mezzo eval configs/quickstart.yaml --adapter runs/quickstart/adapter --json");
  return [arguments](VerbContext& context) {
    Exchange& exchange = context.exchange;
    Config config;
    std::optional<Inputs> inputs;
    std::optional<AdapterSource> source;
    ModelOnDevice loaded;
    std::unique_ptr<Evaluator> evaluator;
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
      const bool writes = arguments->new_tokens > 0;
      if (writes && config.data.task.type != TaskType::completion) {
        throw UsageError("--max-new-tokens: expected a completion task, found a {} task",
                         name_of(config.data.task.type));
      }
      if (!arguments->predictions.empty()) {
        check_target(arguments->predictions, arguments->overwrite);
        if (!inputs->task.chooses() && !inputs->task.generates() && !writes) {
          throw UsageError("--predictions: a {} task has none without --max-new-tokens",
                           name_of(config.data.task.type));
        }
      }
      evaluator = make_evaluator(inputs->validation, inputs->task, inputs->generation.get());
      if (inputs->generation) {
        inputs->generation->start_grader({.rank = exchange.rank(), .warn = [&](const std::string& line) {
                                            context.log.warning("{}", line);
                                          }});
      }
      loaded = load_model(inputs->files, source ? &*source : nullptr, placement);
    });
    if (exchange.rank() == 0) {
      for (const std::string& warning : inputs->warnings) context.log.warning("{}", warning);
    }
    ProbeRunner& runner = loaded.model->runner;
    runner.reserve(evaluator->largest(), 1);
    const Evaluation result = evaluator->run(runner, exchange, patience);
    Written written;
    if (arguments->new_tokens > 0) {
      const GenerationRule rule{.max_new_tokens = arguments->new_tokens,
                                .ends = end_tokens(config.model.path),
                                .stops = arguments->stops};
      written = scored(answers(*loaded.model, inputs->files.description, *inputs->tokenizer, rule,
                               inputs->validation, exchange, patience),
                       inputs->validation);
    }
    if (exchange.rank() != 0) return ExitCode::done;
    if (!arguments->predictions.empty())
      write_file_atomically(arguments->predictions, predictions_of(result, written, *inputs));
    std::cout << (arguments->json ? json_of(result, written, inputs->task).dump() + '\n'
                                  : text_of(result, written, inputs->task));
    return ExitCode::done;
  };
}

}  // namespace mezzo
