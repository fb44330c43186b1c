#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"

namespace mezzo {

namespace {

struct VerbEntry {
  const char* name;
  const char* description;
  VerbAction (*add)(CLI::App&);
  bool shared = false;  ///< the work of all ranks; else of one
};

constexpr VerbEntry verbs[] = {
    {"train", "fine-tune a model, or go on with a run", add_train, true},
    {"eval", "accuracy and loss on the validation file", add_eval, true},
    {"export", "a PEFT adapter or a whole Hugging Face model from a run or snapshot", add_export},
    {"replay", "rebuild a run's trainables from its trajectory, without a forward", add_replay},
    {"info", "what a model, adapter, snapshot or run is", add_info},
    {"validate", "check all inputs of a config", add_validate, true},
    {"estimate", "memory and operations of a run, without a device", add_estimate},
    {"profile", "where a step's time goes", add_profile},
    {"generate", "continue a text", add_generate},
    {"score", "log-probabilities of completions", add_score},
    {"tokenize", "text on standard input to token ids, or back", add_tokenize},
    {"bench", "the benchmark table: steps of models with random weights", add_bench, true},
    {"config-keys", "the configuration reference", add_config_keys},
    {"completion", "shell completion for bash", add_completion},
};

/// CLI11's exception as a usage error; help and version are printed and are no error.
ExitCode report_parse(CLI::App& app, const CLI::ParseError& error, int rank, int argc, char** argv) {
  if (error.get_exit_code() == 0) {
    if (rank == 0) app.exit(error);
    return ExitCode::done;
  }
  if (app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const VerbEntry& entry : verbs) names.emplace_back(entry.name);
    const std::string near = nearest(argv[1], names);
    throw UsageError("unknown verb '{}'; {}", argv[1],
                     near.empty() ? "see mezzo --help" : fmt::format("the nearest known verb is '{}'", near));
  }
  const CLI::App* chosen = &app;
  for (const CLI::App* verb : app.get_subcommands()) chosen = verb;
  const std::string verb = chosen == &app ? "" : " " + chosen->get_name();
  throw UsageError("{}; see mezzo{} --help", error.what(), verb);
}

ExitCode run(int argc, char** argv, Exchange& exchange) {
  CLI::App app("Fine-tuning of language models with forward passes alone.", "mezzo");
  app.set_version_flag("--version", std::string("mezzo ") + MEZZO_VERSION);
  app.require_subcommand(1);
  app.footer("Each verb has --help with an example. A first run: mezzo train configs/quickstart.yaml");
  std::vector<std::pair<CLI::App*, VerbAction>> actions;
  for (const VerbEntry& entry : verbs) {
    CLI::App* verb = app.add_subcommand(entry.name, entry.description);
    actions.emplace_back(verb, entry.add(*verb));
  }

  Logger log({.rank = exchange.rank(), .host = exchange.host()});
  std::optional<ExitCode> printed;
  together(exchange, starting_patience, [&] {
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      printed = report_parse(app, error, exchange.rank(), argc, argv);
    }
    for (const VerbEntry& entry : verbs) {
      if (exchange.size() == 1 || entry.shared || !app.got_subcommand(entry.name) || printed) continue;
      throw UsageError("{} is the work of one rank, but {} were started", entry.name, exchange.size());
    }
  });
  ExitCode code = printed.value_or(ExitCode::usage);
  VerbContext context{exchange, log, app};
  for (const auto& [verb, action] : actions) {
    if (!printed && verb->parsed()) code = action(context);
  }
  if (!std::cout.flush()) throw IoError("standard output: cannot write");
  return code;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  std::unique_ptr<Exchange> exchange;
  try {
    exchange = make_exchange(argc, argv);
    return static_cast<int>(run(argc, argv, *exchange));
  } catch (const std::exception& error) {
    return report_failure(exchange.get(), error);
  }
}

}  // namespace mezzo
