#pragma once
// Names of keys and sections: which there are, and what a name that is none was most likely meant to be.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config_table.h"
#include "mezzo/core/yaml.h"

namespace mezzo::config {

/// The row of a key's full name, or nullptr.
const Key* find_key(std::string_view name);

/// "data.task.loss" -> {"data.task", "loss"}; a name without a dot has no section.
std::pair<std::string, std::string> split_leaf(const std::string& name);

/// Whether there is such a section: "data", "data.task".
bool is_section(const std::string& name);

/// How an error about the unknown `leaf` in `section` ends: with the nearest known name, or all that are
/// there.
std::string nearest_text(const std::string& section, const std::string& leaf);

/// UsageError: `leaf` is no key of `section`.
[[noreturn]] void fail_unknown(const std::string& where, const std::string& section, const std::string& leaf);

/// UsageError: `section` stands for something else than a map.
[[noreturn]] void fail_section(const std::string& where, const std::string& section, const yaml::Node& node);

}  // namespace mezzo::config
