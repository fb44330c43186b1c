#pragma once
// What has to go together in a generation task: data.task.reward and generation.
#include <map>
#include <string>

#include "mezzo/core/config.h"
#include "mezzo/core/yaml.h"

namespace mezzo::config {

/// Keys that have a value other than null, and where.
using Given = std::map<std::string, yaml::Place>;

/// UsageError naming the key and its place for keys that do not go together. Nothing for other tasks.
void check_generation(const Given& given, const Config& config);

}  // namespace mezzo::config
