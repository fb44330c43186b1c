// The configuration reference: the table as a page.
#include "config_names.h"
#include "config_table.h"
#include "mezzo/core/config.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

std::string escape_cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

std::string_view resumption_text(Resumption resumption) {
  switch (resumption) {
    case Resumption::free:
    case Resumption::job:
      return "yes";
    case Resumption::fixed:
      return "no";
    case Resumption::schedule:
      return "with a constant schedule and no step limit";
    case Resumption::fixed_outcome:
      return "where the outcome is the same";
  }
  throw Error("a key of the config has the unknown resumption {}", static_cast<int>(resumption));
}

}  // namespace

std::vector<KeyInfo> config_keys() {
  std::vector<KeyInfo> keys;
  for (const config::Key& row : config::table()) keys.push_back(row.info);
  return keys;
}

std::vector<std::string> words_of(const KeyInfo& key) {
  std::vector<std::string> words;
  std::size_t open = 0;
  while ((open = key.range.find('`', open)) != std::string::npos) {
    const std::size_t close = key.range.find('`', open + 1);
    if (close == std::string::npos) break;
    words.push_back(key.range.substr(open + 1, close - open - 1));
    open = close + 1;
  }
  return words;
}

std::string config_reference_markdown() {
  std::string text = R"(# Configuration reference

<!-- Made from the table in src/core/config_table.cc. tests/core/config_test.cc compares the two and writes this file
     when it runs with MEZZO_UPDATE_DOCS=1 in the environment. -->

A config is one YAML file, `mezzo train CONFIG`. Any key can be overridden behind it, as in `zo.directions=8`. The
value is YAML too, so a text with special characters needs YAML's quotes inside the shell's:
`'data.task.template="{sentence} It was"'`. One entry of the verbalizers is overridden by its label,
`'data.task.verbalizers.0=" bad"'`, and one of the fields by its name. Where a section can be written as one plain
value, as `reward: number`, that value or a whole map overrides it: `data.task.reward=f1`.

Reading is strict, so that nothing is ignored or guessed: an unknown key, a key written twice, a value of another
type or outside its range, and a key that the task does not use are errors. Numbers are written without quotes, in
decimal (`1e-3` is fine where a whole number is not asked for); a text that looks like a number, true or false
needs quotes. Relative paths are taken from the working directory. Anchors, aliases, merge keys, tags and several
documents in one file are refused. `null` stands for none where the default says null.

The last column says whether a key may change when a run is resumed. Those that may not are the run's identity,
which is kept in its folder and compared.
)";
  std::string current;
  for (const config::Key& row : config::table()) {
    const KeyInfo& info = row.info;
    const std::string section = config::split_leaf(info.name).first;
    if (section != current) {
      text += fmt::format(
          "\n## {}\n\n| key | type, range | default | meaning | may change |\n|---|---|---|---|---|\n",
          section);
      current = section;
    }
    std::string meaning = info.description;
    for (std::size_t i = 0; i < row.tasks.size(); ++i)
      meaning += fmt::format("{}{}",
                             i == 0                     ? " Only for "
                             : i + 1 < row.tasks.size() ? ", "
                                                        : " and ",
                             name_of(row.tasks[i]));
    if (!row.tasks.empty()) meaning += ".";
    text +=
        fmt::format("| `{}` | {} | {} | {} | {} |\n", info.name, escape_cell(info.range),
                    escape_cell(info.default_value), escape_cell(meaning), resumption_text(info.resumption));
  }
  return text;
}

}  // namespace mezzo
