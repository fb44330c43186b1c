#include "mezzo/data/records.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "mezzo/data/data_format.h"
#include "mezzo/data/record_path.h"
#include "mezzo/io/byte_source.h"
#include "mezzo/io/delimited_reader.h"
#include "mezzo/io/file_kind.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/line_reader.h"
#include "mezzo/io/parquet_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

bool is_conversation(const Json& record) {
  return record.contains("messages") || record.contains("conversations");
}

void read_object_lines(const std::string& path, const RecordSink& sink) {
  LineReader lines(open_decompressed(path));
  std::string line;
  std::size_t blank = 0;  // number of the first blank line of those that came last
  while (lines.next(line)) {
    std::string_view text = line;
    if (lines.number() == 1 && text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.find_first_not_of(" \t") == text.npos) {
      if (blank == 0) blank = lines.number();
      continue;
    }
    if (blank != 0) throw InputError("{}:{}: the line is empty, expected a JSON object", path, blank);
    const Json record = parse_json(text, path, lines.number());
    const std::string where = fmt::format("{}:{}", path, lines.number());
    if (!record.is_object())
      throw InputError("{}: found {}, expected a JSON object a line", where, record.type_name());
    sink(record, where);
  }
}

/// The one list of objects in a JSON file that is an object.
const Json& list_in(const Json& file, const std::string& path) {
  std::vector<std::string> lists;
  const Json* list = nullptr;
  for (const auto& [name, value] : file.items()) {
    if (!value.is_array() || value.empty() || !value.front().is_object()) continue;
    lists.push_back(quote(name));
    list = &value;
  }
  constexpr const char* forms = "expected a list of objects, or an object with one such field";
  if (is_conversation(file)) throw InputError("{}: this is one conversation, {}", path, forms);
  if (lists.empty()) throw InputError("{}: found an object without a list of objects, {}", path, forms);
  if (lists.size() > 1)
    throw InputError("{}: found an object with the lists {}, {}", path, fmt::join(lists, ", "), forms);
  return *list;
}

/// `whole`: the file is one record.
void read_json_list(const std::string& path, bool whole, const RecordSink& sink) {
  const std::unique_ptr<ByteSource> source = open_decompressed(path);
  const std::string text = read_rest(*source, max_json_bytes);
  std::string_view value = text;
  if (value.starts_with(byte_order_mark)) value.remove_prefix(byte_order_mark.size());
  const Json file = parse_json(value, path);
  if (whole) return sink(file, path);
  const Json& list = file.is_object() ? list_in(file, path) : file;
  if (!list.is_array()) throw InputError("{}: found {}, expected a list of objects", path, list.type_name());
  if (list.empty()) throw InputError("{}: the list is empty, expected at least one object", path);
  std::size_t number = 0;
  for (const Json& record : list) {
    const std::string where = fmt::format("{}: record {}", path, ++number);
    if (!record.is_object()) throw InputError("{}: found {}, expected an object", where, record.type_name());
    sink(record, where);
  }
}

void check_header(const std::vector<std::string>& names, char separator, const std::string& where) {
  if (names.size() == 1) {
    // No task gets by with one field: the separator is another one.
    for (const auto& [other, hint] :
         {std::pair(',', "data.format: csv"), std::pair('\t', "data.format: tsv"),
          std::pair(';', "save it with commas"), std::pair('|', "save it with commas")}) {
      if (other == separator || names[0].find(other) == std::string::npos) continue;
      throw InputError("{}: the header is one field, {}; expected {} between fields ({})", where,
                       quote(names[0]), separator == '\t' ? "tabs" : "commas", hint);
    }
  }
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second)
      throw InputError("{}: the header has the column {} twice", where, quote(name));
  }
}

void read_table(const std::string& path, char separator, const RecordSink& sink) {
  DelimitedReader reader(open_decompressed(path), separator);
  std::vector<std::string> names;
  std::vector<std::string> fields;
  if (!reader.next(names)) throw InputError("{}: the file holds no header", path);
  check_header(names, separator, fmt::format("{}:{}", path, reader.line()));
  std::size_t row = 0;
  while (reader.next(fields)) {
    const std::string where = fmt::format("{}: row {}", path, ++row);
    if (fields.size() != names.size()) {
      throw InputError("{} (line {}): found {} fields, expected {} as in the header", where, reader.line(),
                       fields.size(), names.size());
    }
    Json record = Json::object();
    for (std::size_t i = 0; i < names.size(); ++i) record[names[i]] = std::move(fields[i]);
    sink(record, where);
  }
  if (row == 0) throw InputError("{}: found a header alone, expected rows behind it", path);
}

void read_format(const std::string& path, DataFormat format, bool whole, const RecordSink& sink) {
  switch (format) {
    case DataFormat::jsonl:
      return read_object_lines(path, sink);
    case DataFormat::json:
      return read_json_list(path, whole, sink);
    case DataFormat::csv:
      return read_table(path, ',', sink);
    case DataFormat::tsv:
      return read_table(path, '\t', sink);
    case DataFormat::parquet: {
      std::size_t row = 0;
      read_parquet(path, [&](const Json& record) { sink(record, fmt::format("{}: row {}", path, ++row)); });
      if (row == 0) throw InputError("{}: the Parquet file has no rows", path);
      return;
    }
    case DataFormat::automatic:
      break;
  }
  throw Error("{}: the format of the file was not decided", path);
}

}  // namespace

void read_records(const std::string& path, DataFormat format, const RecordSink& sink,
                  const RecordPath* within) {
  if (within != nullptr) {
    bool any = false;
    const RecordSink inner = [&](const Json& record, const std::string& where) {
      any = true;
      sink(record, where);
    };
    const RecordSink outer = [&](const Json& value, const std::string& where) {
      within->for_each(value, where, inner);
    };
    read_format(path, format_of(path, format), true, outer);
    if (!any)
      throw InputError("{}: the lists of data.task.records are empty, expected one record at least", path);
    return;
  }
  read_format(path, format_of(path, format), false, sink);
}

namespace {

/// What to do about a record that lacks a field; "" where nothing is known.
std::string advice_for(const Json& record) {
  if (record.contains("instruction") && record.contains("output"))
    return "; these are Alpaca's fields: set data.task.type: completion and data.task.format: alpaca";
  for (const auto& [name, value] : record.items()) {
    if (value.is_array() && !value.empty() && value.front().is_object())
      return fmt::format("; data.task.records finds records that lie within {}", quote(name));
  }
  return "";
}

}  // namespace

InputError missing_field(const Json& record, const std::string& field, const std::string& where) {
  if (is_conversation(record)) {
    return InputError("{}: field {} is missing: this is a chat: set data.task.type: chat", where,
                      quote(field));
  }
  constexpr std::size_t most = 20;
  std::vector<std::string> names;
  for (const auto& [name, value] : record.items()) {
    if (names.size() == most) {
      names.emplace_back("...");
      break;
    }
    names.push_back(quote(name));
  }
  return InputError("{}: field {} is missing; the record has {}{}", where, quote(field),
                    names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")), advice_for(record));
}

}  // namespace mezzo
