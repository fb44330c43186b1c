#include <iostream>
#include <memory>

#include "mezzo/cli/verbs.h"
#include "mezzo/core/config.h"

namespace mezzo {

namespace {

/// Long options of an app, space-separated.
std::string options_of(const CLI::App& app) {
  std::string words;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words += " --" + name;
  }
  return words;
}

/// Made from the command line's own tables, so that it cannot fall behind them.
std::string bash_completion(const CLI::App& app) {
  std::string verbs;
  std::string cases;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    verbs += " " + verb->get_name();
    cases += fmt::format("    {}) words=\"{}\" ;;\n", verb->get_name(), options_of(*verb));
  }
  std::string keys;
  for (const KeyInfo& key : config_keys()) keys += " " + key.name + "=";
  return fmt::format(R"(# Bash completion for mezzo: source <(mezzo completion)
_mezzo() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{} --help --version" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{}    *) words="" ;;
  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  COMPREPLY=($(compgen -f -- "$current"))
  case "${{COMP_WORDS[1]}}" in
    train | eval | validate | estimate | profile)
      if [ "$COMP_CWORD" -gt 2 ]; then
        compopt -o nospace 2>/dev/null
        COMPREPLY+=($(compgen -W "{}" -- "$current"))
      fi
      ;;
  esac
}}
complete -o filenames -F _mezzo mezzo
)",
                     verbs, cases, keys);
}

}  // namespace

VerbAction add_completion(CLI::App& verb) {
  verb.footer("Example: source <(mezzo completion)");
  return [](VerbContext& context) {
    std::cout << bash_completion(context.app);
    return ExitCode::done;
  };
}

VerbAction add_config_keys(CLI::App& verb) {
  verb.footer("Example: mezzo config-keys > docs/configuration.md");
  return [](VerbContext&) {
    std::cout << config_reference_markdown();
    return ExitCode::done;
  };
}

}  // namespace mezzo
