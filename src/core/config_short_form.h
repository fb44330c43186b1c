#pragma once
// Sections that a plain value may stand for: `reward: number` is `reward: {type: number}`.
#include <string>

#include "config_table.h"
#include "mezzo/core/yaml.h"

namespace mezzo::config {

/// The key that a plain value of `section` is a value of, or nullptr where the section has no short form.
const Key* short_form_of(const std::string& section);

/// Makes the map of a plain value that stands for `section`.
void expand_short_form(yaml::Node& node, const std::string& section);

/// The same everywhere below `root`, a config.
void expand_short_forms(yaml::Node& root);

}  // namespace mezzo::config
