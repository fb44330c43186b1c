#include <iostream>
#include <memory>
#include <vector>

#include "mezzo/cli/verbs.h"
#include "mezzo/core/config.h"

namespace mezzo {

namespace {

/// An option of a verb, and the words that it takes; none where it takes anything, or nothing.
struct OptionWords {
  std::string name;  ///< "--device"
  std::vector<std::string> words;
};

struct VerbWords {
  std::string name;
  std::string description;
  std::vector<OptionWords> options;
  std::vector<std::string> first;  ///< what may stand right behind the verb; none: a file
  bool takes_keys = false;         ///< a.b=value
  bool takes_lists = false;        ///< a.b=value,value
};

/// The words of CLI::IsMember, which the option's type shows as {a,b,c}.
std::vector<std::string> members_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t open = type.find('{');
  if (open == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 1, type.rfind('}') - open - 1), ',');
}

/// Made from the command line's own tables, so that it cannot fall behind them.
std::vector<VerbWords> words_of(const CLI::App& app) {
  std::vector<VerbWords> verbs;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    VerbWords& words = verbs.emplace_back();
    words.name = verb->get_name();
    words.description = verb->get_description();
    words.takes_keys = verb->get_option_no_throw("overrides") != nullptr;
    words.takes_lists = words.takes_keys && words.name == "sweep";
    for (const CLI::Option* option : verb->get_options()) {
      for (const std::string& name : option->get_lnames())
        words.options.push_back({"--" + name, members_of(*option)});
      if (option->get_positional() && words.first.empty()) words.first = members_of(*option);
    }
  }
  for (VerbWords& help : verbs) {
    if (help.name != "help") continue;
    for (const VerbWords& verb : verbs) help.first.push_back(verb.name);
  }
  return verbs;
}

std::string joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

/// Lines of a shell's case, the keys' words.
std::string cases_of_keys(const char* form) {
  std::string cases;
  for (const KeyInfo& key : config_keys()) {
    if (const auto words = mezzo::words_of(key); !words.empty())
      cases += fmt::format(fmt::runtime(form), key.name, joined(words));
  }
  return cases;
}

std::string names_of_keys() {
  std::vector<std::string> keys;
  for (const KeyInfo& key : config_keys()) keys.push_back(key.name + "=");
  return joined(keys);
}

/// "a | b", of the verbs for which `holds`.
template <typename Holds>
std::string pattern_of(const std::vector<VerbWords>& verbs, Holds holds) {
  std::vector<std::string> names;
  for (const VerbWords& verb : verbs) {
    if (holds(verb)) names.push_back(verb.name);
  }
  return fmt::format("{}", fmt::join(names, " | "));
}

std::string names_of(const std::vector<VerbWords>& verbs) {
  std::vector<std::string> names;
  for (const VerbWords& verb : verbs) names.push_back(verb.name);
  return joined(names);
}

std::string names_of(const std::vector<OptionWords>& options) {
  std::vector<std::string> names;
  for (const OptionWords& option : options) names.push_back(option.name);
  return joined(names);
}

/// Lines of a case over "VERB OPTION", "VERB" and "VERB first", in bash and in zsh.
struct ShellCases {
  std::string options, first, option_words;
};
ShellCases shell_cases(const std::vector<VerbWords>& verbs) {
  ShellCases cases;
  for (const VerbWords& verb : verbs) {
    cases.options += fmt::format("    {}) options=\"{}\" ;;\n", verb.name, names_of(verb.options));
    if (!verb.first.empty())
      cases.first += fmt::format("    {}) first=\"{}\" ;;\n", verb.name, joined(verb.first));
    for (const OptionWords& option : verb.options) {
      if (!option.words.empty())
        cases.option_words +=
            fmt::format("    \"{} {}\") words=\"{}\" ;;\n", verb.name, option.name, joined(option.words));
    }
  }
  return cases;
}

std::string bash_completion(const CLI::App& app) {
  const std::vector<VerbWords> verbs = words_of(app);
  const ShellCases cases = shell_cases(verbs);
  return fmt::format(
      R"(# Bash completion for mezzo: source <(mezzo completion)
_mezzo() {{
  # The words as they are typed: readline would cut a.b=value at the sign.
  local line="${{COMP_LINE:0:COMP_POINT}}" typed current previous verb options="" first="" words="" key value kept
  read -ra typed <<<"$line"
  current="${{line##*[[:space:]]}}"
  [ -n "$current" ] || typed+=("")
  local place=$((${{#typed[@]}} - 1))
  verb="${{typed[1]}}"
  previous="${{typed[place - 1]}}"
  COMPREPLY=()
  if [ "$place" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$current"))
    return
  fi
  case "$verb" in
{options}  esac
  case "$verb" in
{first}  esac
  case "$verb $previous" in
{option_words}  esac
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
    return
  fi
  if [ "$place" -eq 2 ] && [ -n "$first" ]; then
    COMPREPLY=($(compgen -W "$first" -- "$current"))
    return
  fi
  case "$verb" in
    {takes_keys})
      if [[ "$current" == *=* ]]; then
        key="${{current%%=*}}"
        value="${{current#*=}}"
        kept=""
        case "$key" in
{keys}        esac
        case "$verb" in
          {takes_lists})
            if [[ -n "$words" && "$value" == *,* ]]; then
              kept="${{value%,*}},"
              value="${{value##*,}}"
            fi
            ;;
        esac
        # Readline replaces what stands behind the sign, if that cuts words.
        [[ "$COMP_WORDBREAKS" == *=* ]] || kept="$key=$kept"
        if [ -n "$words" ]; then
          COMPREPLY=($(compgen -P "$kept" -W "$words" -- "$value"))
        else
          compopt -o filenames 2>/dev/null
          COMPREPLY=($(compgen -P "$kept" -f -- "$value"))
        fi
        return
      fi
      if [ "$place" -gt 2 ]; then
        COMPREPLY=($(compgen -W "{all_keys}" -- "$current"))
        if [ "${{#COMPREPLY[@]}}" -gt 0 ]; then
          compopt -o nospace 2>/dev/null
          return
        fi
      fi
      ;;
  esac
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _mezzo mezzo
)",
      fmt::arg("verbs", names_of(verbs)), fmt::arg("options", cases.options), fmt::arg("first", cases.first),
      fmt::arg("option_words", cases.option_words),
      fmt::arg("takes_keys", pattern_of(verbs, [](const VerbWords& v) { return v.takes_keys; })),
      fmt::arg("takes_lists", pattern_of(verbs, [](const VerbWords& v) { return v.takes_lists; })),
      fmt::arg("keys", cases_of_keys("          {}) words=\"{}\" ;;\n")),
      fmt::arg("all_keys", names_of_keys()));
}

std::string zsh_completion(const CLI::App& app) {
  const std::vector<VerbWords> verbs = words_of(app);
  const ShellCases cases = shell_cases(verbs);
  return fmt::format(
      R"(#compdef mezzo
# Zsh completion for mezzo: source <(mezzo completion zsh), behind compinit
_mezzo() {{
  local verb="$words[2]" previous="$words[CURRENT-1]" options="" first="" key
  if (( CURRENT == 2 )); then
    compadd -- {verbs} --help --version
    return
  fi
  case "$verb" in
{options}  esac
  case "$verb" in
{first}  esac
  _mezzo_option_words "$verb $previous" && return
  if [[ "$PREFIX" == -* ]]; then
    compadd -- ${{=options}}
    return
  fi
  if (( CURRENT == 3 )) && [[ -n "$first" ]]; then
    compadd -- ${{=first}}
    return
  fi
  case "$verb" in
    {takes_keys})
      if [[ "$PREFIX" == *=* ]]; then
        key="${{PREFIX%%=*}}"
        compset -P '*='
        _mezzo_key_words "$key" || _files
        return
      fi
      if (( CURRENT > 3 )); then
        compadd -S '' -- {all_keys} && return
      fi
      ;;
  esac
  _files
}}
_mezzo_option_words() {{
  local words=""
  case "$1" in
{option_words}  esac
  [[ -n "$words" ]] && compadd -- ${{=words}}
}}
_mezzo_key_words() {{
  local words=""
  case "$1" in
{keys}  esac
  [[ -n "$words" ]] || return 1
  [[ "$PREFIX" == *,* ]] && compset -P '*,'
  compadd -- ${{=words}}
}}
# Sourced, it takes effect here; of a folder of $fpath, zsh reads it as _mezzo's own body at the first completion.
if [[ "$funcstack[1]" == _mezzo ]]; then
  _mezzo "$@"
else
  compdef _mezzo mezzo
fi
)",
      fmt::arg("verbs", names_of(verbs)), fmt::arg("options", cases.options), fmt::arg("first", cases.first),
      fmt::arg("option_words", cases.option_words),
      fmt::arg("takes_keys", pattern_of(verbs, [](const VerbWords& v) { return v.takes_keys; })),
      fmt::arg("keys", cases_of_keys("    {}) words=\"{}\" ;;\n")), fmt::arg("all_keys", names_of_keys()));
}

/// As a word of fish within '...'.
std::string fish_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "'";
}

std::string fish_completion(const CLI::App& app) {
  const std::vector<VerbWords> verbs = words_of(app);
  std::string text = "# Fish completion for mezzo: mezzo completion fish | source\n";
  std::string with_keys;
  for (const VerbWords& verb : verbs) {
    text += fmt::format("complete -c mezzo -n __fish_use_subcommand -f -a {} -d {}\n", verb.name,
                        fish_quoted(verb.description));
    const std::string seen = fmt::format("-n '__fish_seen_subcommand_from {}'", verb.name);
    for (const OptionWords& option : verb.options) {
      text += fmt::format("complete -c mezzo {} -l {}", seen, option.name.substr(2));
      if (!option.words.empty()) text += fmt::format(" -x -a '{}'", joined(option.words));
      text += '\n';
    }
    if (!verb.first.empty())
      text += fmt::format("complete -c mezzo {} -f -a '{}'\n", seen, joined(verb.first));
    if (verb.takes_keys) with_keys += " " + verb.name;
  }
  for (const KeyInfo& key : config_keys()) {
    std::vector<std::string> words = {key.name + "="};
    for (const std::string& word : mezzo::words_of(key)) words.push_back(key.name + "=" + word);
    text += fmt::format("complete -c mezzo -n '__fish_seen_subcommand_from{}' -a '{}' -d {}\n", with_keys,
                        joined(words), fish_quoted(key.description));
  }
  return text;
}

}  // namespace

VerbAction add_completion(CLI::App& verb) {
  auto shell = std::make_shared<std::string>("bash");
  verb.add_option("shell", *shell, "bash, zsh or fish")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->capture_default_str();
  verb.footer("Example: source <(mezzo completion)");
  return [shell](VerbContext& context) {
    if (*shell == "zsh") std::cout << zsh_completion(context.app);
    else if (*shell == "fish") std::cout << fish_completion(context.app);
    else std::cout << bash_completion(context.app);
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
