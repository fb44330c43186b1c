#pragma once
// Data files as records: JSON objects, whatever the file's format.
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "mezzo/core/config.h"
#include "mezzo/core/error.h"

namespace mezzo {

/// Gets each record, in the order of the file, and where it stands, for messages: "data.jsonl:3" is a line,
/// "data.json: record 3" one of a JSON list, "data.csv: row 3" one of a table, the first being row 1.
using RecordSink = std::function<void(const nlohmann::json& record, const std::string& where)>;

class RecordPath;

/// All records of a data file, one at least; with `within` those that lie there: in a JSON file as a whole,
/// in each line or row of others. What is read:
///   jsonl    one JSON object a line; blank lines at the end are passed over
///   json     a list of objects, or an object of which one field is such a list ({"version": 1, "data":
///   [...]}) csv, tsv a header of names, then rows; every field is a text parquet  a record a row; where the
///   build is without Arrow, an InputError with the command that converts
/// Texts may be compressed with gzip or zstd, and begin with UTF-8's byte order mark. InputError naming the
/// file, the place, what was found and what was expected.
void read_records(const std::string& path, DataFormat format, const RecordSink& sink,
                  const RecordPath* within = nullptr);

/// What to throw for a record that lacks a field: names the fields that it has, and says so when it is a
/// conversation.
InputError missing_field(const nlohmann::json& record, const std::string& field, const std::string& where);

}  // namespace mezzo
