#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mezzo/cli/common.h"
#include "mezzo/cli/sweep_grid.h"
#include "mezzo/cli/verbs.h"
#include "mezzo/comm/together.h"
#include "mezzo/core/config.h"
#include "mezzo/core/error.h"
#include "mezzo/core/process.h"

namespace mezzo {

namespace {

struct VerbEntry {
  const char* name;
  const char* description;
  VerbAction (*add)(CLI::App&);
  bool shared = false;  ///< the work of all ranks; else of one
};

VerbAction add_help(CLI::App& verb);

constexpr VerbEntry verbs[] = {
    {"train", "fine-tune a model, or go on with a run", add_train, true},
    {"sweep", "train a grid of runs one after another, and compare them", add_sweep, true},
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
    {"completion", "shell completion for bash, zsh and fish", add_completion},
    {"man-pages", "the manual pages of mezzo and its verbs", add_man_pages},
    {"help", "what a verb does and takes", add_help},
};

[[noreturn]] void fail_unknown_verb(const std::string& name) {
  std::vector<std::string> names;
  for (const VerbEntry& entry : verbs) names.emplace_back(entry.name);
  const std::string near = nearest(name, names);
  throw UsageError("unknown verb '{}'; {}", name,
                   near.empty() ? "see mezzo --help" : fmt::format("the nearest known verb is '{}'", near));
}

VerbAction add_help(CLI::App& verb) {
  auto name = std::make_shared<std::string>();
  verb.add_option("verb", *name, "the verb (default: a list of all)");
  verb.footer("Example: mezzo help train");
  return [name](VerbContext& context) {
    const CLI::App* about = name->empty() ? &context.app : nullptr;
    for (const CLI::App* each : context.app.get_subcommands([](const CLI::App*) { return true; })) {
      if (each->get_name() == *name) about = each;
    }
    if (about == nullptr) fail_unknown_verb(*name);
    // App::help() would be that of the verb that was given: this one.
    const std::string title = about == &context.app ? "mezzo" : "mezzo " + *name;
    std::cout << about->get_formatter()->make_help(about, title, CLI::AppFormatMode::Normal);
    return ExitCode::done;
  };
}

/// CLI11's exception as a usage error; help and version are printed and are no error.
ExitCode report_parse(CLI::App& app, const CLI::ParseError& error, int rank, int argc, char** argv) {
  if (error.get_exit_code() == 0) {
    if (rank == 0) app.exit(error);
    return ExitCode::done;
  }
  if (app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
    fail_unknown_verb(argv[1]);
  }
  const CLI::App* chosen = &app;
  for (const CLI::App* verb : app.get_subcommands()) chosen = verb;
  const std::string verb = chosen == &app ? "" : " " + chosen->get_name();
  throw UsageError("{}; see mezzo{} --help", error.what(), verb);
}

/// What the command line asks for, taken before there are other ranks to talk to.
class CommandLine {
 public:
  CommandLine(int argc, char** argv);

  /// How long the job's ranks may take to start, as the config says that the verb is given.
  Seconds start_timeout() const;
  ExitCode run(Exchange& exchange);

 private:
  int argc_;
  char** argv_;
  CLI::App app_{"Fine-tuning of language models with forward passes alone.", "mezzo"};
  bool quiet_ = false;
  bool verbose_ = false;
  std::vector<std::pair<CLI::App*, VerbAction>> actions_;
  std::exception_ptr failure_;  // of the parse: help is one too
};

CommandLine::CommandLine(int argc, char** argv) : argc_(argc), argv_(argv) {
  app_.set_version_flag("-V,--version", std::string("mezzo ") + MEZZO_VERSION);
  app_.require_subcommand(1);
  app_.footer("Each verb has --help with an example. A first run: mezzo train configs/quickstart.yaml");
  for (const VerbEntry& entry : verbs) {
    CLI::App* verb = app_.add_subcommand(entry.name, entry.description);
    actions_.emplace_back(verb, entry.add(*verb));
    auto* quiet = verb->add_flag("-q,--quiet", quiet_, "of the messages warnings and errors alone");
    verb->add_flag("-v,--verbose", verbose_, "more messages: each step's times and what is written")
        ->excludes(quiet);
  }
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError&) {
    failure_ = std::current_exception();
  }
}

Seconds CommandLine::start_timeout() const {
  const Seconds otherwise(RuntimeConfig().start_timeout_s);
  if (failure_) return otherwise;
  const CLI::App* verb = app_.get_subcommands().front();
  const CLI::Option* config = verb->get_option_no_throw("config");
  const CLI::Option* overrides = verb->get_option_no_throw("overrides");
  if (config == nullptr || overrides == nullptr) return otherwise;
  const auto path = config->as<std::string>();
  std::vector<std::string> values = overrides->results();
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return otherwise;  // a pipe can be read only once
  try {
    if (verb->get_name() == "sweep") values = expand_grid(values).fixed;
    return Seconds(load_config(path, values, ConfigUse::inspect).runtime.start_timeout_s);
  } catch (const Error&) {
    return otherwise;  // the verb reads it again, and says what is wrong once for all ranks
  }
}

ExitCode CommandLine::run(Exchange& exchange) {
  const LogLevel level = quiet_ ? LogLevel::warning : verbose_ ? LogLevel::debug : LogLevel::info;
  Logger log({.rank = exchange.rank(), .host = exchange.host(), .level = level});
  std::optional<ExitCode> printed;
  together(exchange, starting_patience, [&] {
    try {
      if (failure_) std::rethrow_exception(failure_);
    } catch (const CLI::ParseError& error) {
      printed = report_parse(app_, error, exchange.rank(), argc_, argv_);
    }
    for (const VerbEntry& entry : verbs) {
      if (exchange.size() == 1 || entry.shared || !app_.got_subcommand(entry.name) || printed) continue;
      throw UsageError("{} is the work of one rank, but {} were started", entry.name, exchange.size());
    }
  });
  ExitCode code = printed.value_or(ExitCode::usage);
  VerbContext context{exchange, log, app_};
  for (const auto& [verb, action] : actions_) {
    if (!printed && verb->parsed()) code = action(context);
  }
  flush_standard_output();
  return code;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  prepare_process();
  std::unique_ptr<Exchange> exchange;
  try {
    CommandLine line(argc, argv);
    exchange = make_exchange(argc, argv, line.start_timeout());
    return static_cast<int>(line.run(*exchange));
  } catch (const std::exception& error) {
    return report_failure(exchange.get(), error);
  }
}

}  // namespace mezzo
