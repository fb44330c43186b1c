#pragma once
// The table behind the config: one row a key. Reading, printing, identity and the reference are loops over
// it.
#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config_values.h"
#include "mezzo/core/config.h"

namespace mezzo::config {

/// One row.
struct Key {
  KeyInfo info;
  std::vector<TaskType> tasks;        ///< that use the key; none: all
  std::vector<std::string> synonyms;  ///< names that other programs have for it, for "nearest known key"
  bool is_short_form = false;         ///< a plain value of its section is a value of this key
  std::function<void(const Value&, Config&)> read;
  std::function<std::string(const Config&)> write;

  Key& defaults_to(std::string text) {
    info.default_value = std::move(text);
    return *this;
  }
  Key& used_for(std::initializer_list<TaskType> which) {
    tasks = which;
    return *this;
  }
  /// For a key that is younger than records: what a run did whose record lacks it, as YAML.
  Key& before_records(std::string value) {
    info.before_records = std::move(value);
    return *this;
  }
  Key& also_called(std::initializer_list<std::string> names) {
    synonyms = names;
    return *this;
  }
  /// `reward: number` stands for `reward: {type: number}`.
  Key& short_form_of_section() {
    is_short_form = true;
    return *this;
  }
  bool is_used_by(TaskType type) const {
    return tasks.empty() || std::ranges::find(tasks, type) != tasks.end();
  }
};

/// A row; `access` gives the member of a (const or not) Config that the key stands for. Without defaults_to()
/// the default is what a fresh Config holds.
template <typename Access, typename Type>
Key key(std::string name, Access access, Type type, Resumption resumption, std::string description) {
  Key row;
  row.read = [access, type](const Value& value, Config& config) { access(config) = type.parse(value); };
  row.write = [access, type](const Config& config) { return type.text(access(config)); };
  row.info = {.name = std::move(name),
              .range = type.range(),
              .default_value = row.write(Config{}),
              .description = std::move(description),
              .resumption = resumption,
              .before_records = ""};
  return row;
}

/// All rows, in the order of the reference.
const std::vector<Key>& table();

/// The keys whose values are maps with keys of the user's own.
inline constexpr std::array<std::string_view, 2> map_keys = {"data.task.verbalizers", "data.task.fields"};

}  // namespace mezzo::config
