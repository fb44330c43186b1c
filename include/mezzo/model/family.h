#pragma once
// The model families: each is one file that maps config.json onto a Description.
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "mezzo/model/description.h"

namespace mezzo {

class JsonCursor;

struct Family {
  std::string_view model_type;  ///< of config.json
  Description (*describe)(const JsonCursor& config);
};

/// All families that are served, in alphabetical order.
std::span<const Family> families();

/// The description of the model whose config.json is `config`, read from `path` (for messages). InputError
/// for a family that is not served, a key that is missing, of another type or out of range, and for a value
/// that asks for maths that Mezzo does not do. Keys that change nothing pass.
Description describe(const nlohmann::json& config, const std::string& path);

/// The same, of the model directory's config.json. Needs no weights.
Description read_description(const std::string& directory);

}  // namespace mezzo
