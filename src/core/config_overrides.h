#pragma once
// Overrides of the command line: a.b=value.
#include <set>
#include <string>

#include "mezzo/core/yaml.h"

namespace mezzo::config {

/// Puts "a.b=value" (the value is YAML) over the tree at `root`; data.task.verbalizers.LABEL=option sets one
/// entry of that map. `seen` holds the names that earlier overrides gave: one that is repeated is a
/// UsageError.
void apply_override(yaml::Node& root, const std::string& text, std::set<std::string>& seen);

}  // namespace mezzo::config
