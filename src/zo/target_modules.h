#pragma once
// PEFT's target_modules in the record of a parameter space: "all-linear" or a list of names.
#include <nlohmann/json.hpp>

#include "mezzo/core/config.h"
#include "mezzo/io/json_cursor.h"

namespace mezzo {

inline nlohmann::ordered_json to_record(const TargetModules& targets) {
  return targets.all_linear ? nlohmann::ordered_json("all-linear") : nlohmann::ordered_json(targets.names);
}

/// InputError for what is neither, and for an empty list.
inline TargetModules read_target_modules(const JsonCursor& field) {
  TargetModules targets;
  targets.all_linear = field.value() == "all-linear";
  if (targets.all_linear) return targets;
  for (const JsonCursor& target : field.elements()) {
    if (!target.is_text() || target.text().empty()) target.fail("the name of a module");
    targets.names.push_back(target.text());
  }
  if (targets.names.empty()) field.fail("all-linear or a list of names");
  return targets;
}

}  // namespace mezzo
