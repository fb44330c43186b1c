#pragma once
// Parquet, by Arrow's C++ library. A build without it (MEZZO_ARROW in CMakeLists.txt) refuses each file.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace mezzo {

/// Gives `sink` each row as a JSON object, in order: texts, numbers, booleans, lists and structs as their
/// JSON, nulls as null; dates, times and decimals as texts, as Arrow prints them; binary data and maps as an
/// empty value of nlohmann's type binary, since no text stands for them. InputError naming the file for one
/// that cannot be read, and, in a build without Arrow, with a command that makes a readable file of it.
void read_parquet(const std::string& path, const std::function<void(const nlohmann::json& row)>& sink);

}  // namespace mezzo
