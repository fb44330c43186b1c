#pragma once
// The verbs of the command line. Each adds its subcommand and returns what runs when it was chosen.
#include <CLI/CLI.hpp>
#include <functional>

#include "mezzo/comm/exchange.h"
#include "mezzo/core/log.h"

namespace mezzo {

/// What a verb runs with.
struct VerbContext {
  Exchange& exchange;
  Logger& log;
  CLI::App& app;  ///< the whole command line, for completion and manual pages
};
using VerbAction = std::function<ExitCode(VerbContext&)>;

VerbAction add_train(CLI::App& verb);
VerbAction add_sweep(CLI::App& verb);
VerbAction add_eval(CLI::App& verb);
VerbAction add_export(CLI::App& verb);
VerbAction add_replay(CLI::App& verb);
VerbAction add_info(CLI::App& verb);
VerbAction add_tokenize(CLI::App& verb);
VerbAction add_score(CLI::App& verb);
VerbAction add_generate(CLI::App& verb);
VerbAction add_validate(CLI::App& verb);
VerbAction add_estimate(CLI::App& verb);
VerbAction add_profile(CLI::App& verb);
VerbAction add_bench(CLI::App& verb);
VerbAction add_config_keys(CLI::App& verb);
VerbAction add_completion(CLI::App& verb);
VerbAction add_man_pages(CLI::App& verb);

/// The whole program: what main() returns.
int run_command_line(int argc, char** argv);

}  // namespace mezzo
