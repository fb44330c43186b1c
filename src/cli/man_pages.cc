// The manual pages, made from the command line's own tables, so that they say what --help says.
#include <algorithm>
#include <cctype>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/cli/verbs.h"
#include "mezzo/io/files.h"

namespace mezzo {

namespace {

/// Plain text within man(7): no control line, no escape, and '-' as it is typed, which roff makes a hyphen
/// of.
std::string roff(std::string_view text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) out += "\\&";
    line_begins = c == '\n';
    if (c == '\\') out += "\\e";
    else if (c == '-') out += "\\-";
    else out += c;
  }
  return out;
}

std::string bold(std::string_view text) { return "\\fB" + roff(text) + "\\fR"; }
std::string italic(std::string_view text) { return "\\fI" + roff(text) + "\\fR"; }

/// A paragraph as roff has it: lines of at most 72 bytes before escapes, and a new one for each sentence.
std::string filled(std::string_view text) {
  constexpr std::size_t width = 72;
  std::string out, line;
  for (const std::string& word :
       CLI::detail::split(CLI::detail::find_and_replace(std::string(text), "\n", " "), ' ')) {
    if (word.empty()) continue;
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      out += roff(line) + '\n';
      line.clear();
    }
    if (!line.empty()) line += ' ';
    line += word;
    if (word.ends_with('.')) {
      out += roff(line) + '\n';
      line.clear();
    }
  }
  return line.empty() ? out : out + roff(line) + '\n';
}

char upper(char c) { return static_cast<char>(std::toupper(static_cast<unsigned char>(c))); }

/// A verb's description as a sentence; an option's may begin with what is typed.
std::string sentence(std::string text) {
  text[0] = upper(text[0]);
  return text.ends_with('.') ? text : text + '.';
}

std::string upper_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), upper);
  return text;
}

/// What stands behind --help: notes, then from "Example: " on commands, whose lines are indented as far.
struct Footer {
  std::string notes;
  std::vector<std::string> examples;
};
Footer footer_of(const CLI::App& verb) {
  constexpr std::string_view mark = "Example: ";
  const std::string text = verb.get_footer();
  const std::size_t examples = std::min(text.find(mark), text.size());
  Footer footer{text.substr(0, examples), {}};
  for (const std::string& line : CLI::detail::split(text.substr(examples), '\n'))
    if (line.size() > mark.size()) footer.examples.push_back(line.substr(mark.size()));
  return footer;
}

/// "-q", "--quiet": in bold, as they are typed.
std::string names_of(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(bold("-" + name));
  for (const std::string& name : option.get_lnames()) names.push_back(bold("--" + name));
  return fmt::format("{}", fmt::join(names, ", "));
}

/// The arguments of a verb, or its options. What is behind a name is the formatter's, as in --help.
std::string listed(const CLI::App& verb, bool positional) {
  const CLI::Formatter formatter;
  std::string text;
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_positional() != positional) continue;
    text += fmt::format(".TP\n{}{}\n{}", positional ? italic(option->get_name(true)) : names_of(*option),
                        roff(formatter.make_option_opts(option)), filled(option->get_description()));
  }
  return text;
}

std::string head(const std::string& name, const std::string& description) {
  return fmt::format(".TH {} 1 {} \"mezzo {}\" \"Mezzo\"\n.SH NAME\n{}.SH SYNOPSIS\n", upper_case(roff(name)),
                     MEZZO_DATE, MEZZO_VERSION, filled(name + " - " + description));
}

constexpr const char* exit_status =
    ".SH EXIT STATUS\n"
    ".TP\n0\nDone.\n"
    ".TP\n1\nAn error: a file, a device or another rank.\n"
    ".TP\n2\nUsage or config: nothing was started.\n"
    ".TP\n75\nStopped: the same command goes on where the run stopped.\n";

std::string page_of(const CLI::App& verb) {
  const CLI::Formatter formatter;
  const Footer footer = footer_of(verb);
  std::string text = head("mezzo-" + verb.get_name(), verb.get_description());
  text += bold("mezzo " + verb.get_name()) + " [" + italic("OPTIONS") + "]";
  for (const CLI::Option* option : verb.get_options())
    if (option->get_positional()) text += ' ' + italic(formatter.make_option_usage(option));
  text += "\n.SH DESCRIPTION\n" + filled(sentence(verb.get_description()));
  if (!footer.notes.empty()) text += ".PP\n" + filled(footer.notes);
  if (verb.get_option_no_throw("overrides") != nullptr)
    text += ".PP\nThe keys of a config are listed by\n" + bold("mezzo config-keys") + ".\n";
  if (const std::string arguments = listed(verb, true); !arguments.empty())
    text += ".SH ARGUMENTS\n" + arguments;
  text += ".SH OPTIONS\n" + listed(verb, false) + exit_status + ".SH EXAMPLES\n.nf\n";
  for (const std::string& line : footer.examples) text += roff(line) + '\n';
  return text + ".fi\n.SH SEE ALSO\n.BR mezzo (1)\n";
}

std::string page_of_all(const CLI::App& app, const std::vector<CLI::App*>& verbs) {
  std::string text = head("mezzo", "fine-tuning of language models with forward passes alone");
  text += bold("mezzo") + " " + italic("VERB") + " [" + italic("OPTIONS") + "] ...\n.SH DESCRIPTION\n" +
          filled(app.get_description()) + filled(app.get_footer()) + ".SH VERBS\n";
  std::string pages;
  for (const CLI::App* verb : verbs) {
    text += ".TP\n" + bold(verb->get_name()) + '\n' + filled(sentence(verb->get_description()));
    pages +=
        fmt::format(".BR {} (1){}\n", roff("mezzo-" + verb->get_name()), verb == verbs.back() ? "" : ",");
  }
  return text + ".SH OPTIONS\n" + listed(app, false) + exit_status + ".SH SEE ALSO\n" + pages;
}

}  // namespace

VerbAction add_man_pages(CLI::App& verb) {
  auto folder = std::make_shared<std::string>();
  verb.add_option("folder", *folder, "where mezzo.1 and a page a verb are written")->required();
  verb.footer("Example: mezzo man-pages pages && man pages/mezzo-train.1");
  return [folder](VerbContext& context) {
    const std::vector<CLI::App*> verbs = context.app.get_subcommands([](CLI::App*) { return true; });
    create_directories(*folder);
    write_file_atomically(*folder + "/mezzo.1", page_of_all(context.app, verbs));
    for (const CLI::App* each : verbs)
      write_file_atomically(fmt::format("{}/mezzo-{}.1", *folder, each->get_name()), page_of(*each));
    return ExitCode::done;
  };
}

}  // namespace mezzo
