#pragma once
// Data files as records: JSON objects, whatever the file's format.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace mezzo {

/// Gets each record, in the order of the file, and where it stands ("data.jsonl:3") for messages.
using RecordSink = std::function<void(const nlohmann::json& record, const std::string& where)>;

/// All records of a JSON-lines file, one at least. InputError naming file and line.
void read_records(const std::string& path, const RecordSink& sink);

}  // namespace mezzo
