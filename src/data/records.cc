#include "mezzo/data/records.h"

#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/line_reader.h"

namespace mezzo {

void read_records(const std::string& path, const RecordSink& sink) {
  LineReader lines(path);
  std::string line;
  while (lines.next(line)) {
    const std::string where = fmt::format("{}:{}", path, lines.number());
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) throw InputError("{}: the line is empty, expected a JSON object", where);
    const nlohmann::json record = parse_json(line, path, lines.number());
    if (!record.is_object())
      throw InputError("{}: found {}, expected a JSON object", where, record.type_name());
    sink(record, where);
  }
  if (lines.number() == 0) throw InputError("{}: the file is empty, expected one JSON object a line", path);
}

}  // namespace mezzo
