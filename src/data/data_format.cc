#include "mezzo/data/data_format.h"

#include <sys/stat.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/byte_source.h"
#include "mezzo/io/file_kind.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/line_reader.h"

namespace mezzo {
namespace {

constexpr std::string_view blanks = " \t\r";

/// What the content of a text shows.
enum class Shape {
  object_lines,  ///< a JSON object alone in the first line, and more lines
  one_object,    ///< a JSON object alone in the one line
  list_lines,    ///< a JSON list alone in the first line, and more lines
  list,          ///< the beginning of a JSON list, or all of one
  open_object,   ///< a first line that begins with { and is no whole JSON object
  no_json
};

struct Look {
  Shape shape;
  std::string first_line;
};

std::string expected(DataFormat asked) {
  switch (asked) {
    case DataFormat::automatic:
      return "JSON lines, JSON, CSV, TSV or Parquet";
    case DataFormat::jsonl:
      return "JSON lines (data.format: jsonl)";
    case DataFormat::json:
      return "one JSON list (data.format: json)";
    case DataFormat::csv:
      return "CSV (data.format: csv)";
    case DataFormat::tsv:
      return "TSV (data.format: tsv)";
    case DataFormat::parquet:
      return "Parquet (data.format: parquet)";
  }
  throw Error("data.format has the unknown value {}", static_cast<int>(asked));
}

[[noreturn]] void refuse(const std::string& path, const FileKind& found, DataFormat asked) {
  throw InputError("{}: this is {}, expected {}{}{}", path, found.name, expected(asked),
                   found.advice.empty() ? "" : "; ", found.advice);
}

/// The extension in front of that of a compression, lower case: ".csv" of "a.CSV.gz".
std::string extension_of(std::string_view path) {
  std::string name = ascii_lower(path.substr(path.rfind('/') + 1));
  for (const std::string_view compression : {".gz", ".zst", ".zstd"}) {
    if (name.ends_with(compression)) name.resize(name.size() - compression.size());
  }
  const std::size_t dot = name.rfind('.');
  return dot == name.npos ? "" : name.substr(dot);
}

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// Lines up to the one that tells the shape.
Look look_at(const std::string& path, DataFormat asked) {
  LineReader lines(open_decompressed(path));
  std::string first;
  bool has_bytes = false;
  while (lines.next(first)) {
    has_bytes = true;
    if (lines.number() == 1 && first.starts_with(byte_order_mark)) first.erase(0, byte_order_mark.size());
    if (first.find_first_not_of(blanks) != first.npos) break;
    first.clear();
  }
  if (first.empty()) {
    throw InputError("{}: the file {}, expected {}", path, has_bytes ? "holds blank lines alone" : "is empty",
                     expected(asked));
  }
  const char begin = first[first.find_first_not_of(blanks)];
  if (begin != '{' && begin != '[') return {Shape::no_json, std::move(first)};
  if (!nlohmann::json::accept(first))
    return {begin == '[' ? Shape::list : Shape::open_object, std::move(first)};
  bool alone = true;
  for (std::string line; alone && lines.next(line);) alone = line.find_first_not_of(blanks) == line.npos;
  if (begin == '[') return {alone ? Shape::list : Shape::list_lines, std::move(first)};
  return {alone ? Shape::one_object : Shape::object_lines, std::move(first)};
}

/// Of a text that is no JSON.
DataFormat table_format(const std::string& path, const std::string& first_line) {
  const std::string extension = extension_of(path);
  if (extension == ".csv") return DataFormat::csv;
  if (extension == ".tsv" || extension == ".tab") return DataFormat::tsv;
  const bool named_json = extension == ".jsonl" || extension == ".json" || extension == ".ndjson";
  if (!named_json && first_line.find('\t') != first_line.npos) return DataFormat::tsv;
  if (!named_json && first_line.find(',') != first_line.npos) return DataFormat::csv;
  throw InputError("{}: the first line is {}, expected {}; set data.format if it is one of these", path,
                   quote(first_line), named_json ? "JSON" : "JSON, or a header with commas or tabs");
}

DataFormat format_of_text(const std::string& path, const Look& look) {
  const std::string extension = extension_of(path);
  switch (look.shape) {
    case Shape::object_lines:
    case Shape::list_lines:
      return DataFormat::jsonl;
    case Shape::one_object:
      return extension == ".json" ? DataFormat::json : DataFormat::jsonl;
    case Shape::list:
      return DataFormat::json;
    case Shape::open_object:
      return extension == ".jsonl" || extension == ".ndjson" ? DataFormat::jsonl : DataFormat::json;
    case Shape::no_json:
      return table_format(path, look.first_line);
  }
  throw Error("the shape of {} is unknown", path);
}

/// Refuses a text that is surely not in the format asked for.
void check_text(const std::string& path, const Look& look, DataFormat asked) {
  const auto refuse_as = [&](const char* name, const char* format) {
    refuse(path, {name, fmt::format("set data.format: {}, or leave it out", format)}, asked);
  };
  const bool lines = asked == DataFormat::jsonl;
  const bool json = lines || asked == DataFormat::json;
  switch (look.shape) {
    case Shape::object_lines:
      if (!lines) refuse_as("JSON lines", "jsonl");
      return;
    case Shape::list:
      if (lines) refuse_as("a JSON list", "json");
      if (!json && nlohmann::json::accept(look.first_line)) refuse_as("a JSON list", "json");
      return;
    case Shape::one_object:
      if (!json) refuse_as("a JSON object", "json");
      return;
    case Shape::no_json:
      if (json) {
        throw InputError("{}: the first line is {}, expected {}", path, quote(look.first_line),
                         expected(asked));
      }
      return;
    case Shape::list_lines:   // the reader says what is wrong with the line
    case Shape::open_object:  // or a header that begins with a brace
      return;
  }
}

}  // namespace

DataFormat format_of(const std::string& path, DataFormat asked) {
  if (is_directory(path)) {
    const FileKind kind = folder_kind(path);
    throw InputError("{}: a regular file is expected, found {}{}{}", path, kind.name,
                     kind.advice.empty() ? "" : "; ", kind.advice);
  }
  const std::string head = read_head(*open_source(path), file_kind_bytes);
  const bool any = asked == DataFormat::automatic;
  if (head.starts_with(parquet_magic) && file_kind(head)) {
    if (any || asked == DataFormat::parquet) return DataFormat::parquet;
    refuse(path, {"a Parquet file", "set data.format: parquet, or leave it out"}, asked);
  }
  const std::unique_ptr<ByteSource> content = open_decompressed(path);
  const std::string decompressed = read_head(*content, file_kind_bytes);
  const auto outer = file_kind(head);
  const auto inner = file_kind(decompressed);
  if (asked == DataFormat::parquet) {
    if (outer) refuse(path, *outer, asked);
    if (head.empty()) throw InputError("{}: the file is empty, expected {}", path, expected(asked));
    throw InputError("{}: the file begins with {}, expected {}", path, quote(head.substr(0, 40)),
                     expected(asked));
  }
  if (inner) {
    if (head == decompressed) refuse(path, *inner, asked);
    refuse(path, {outer->name + " that holds " + inner->name, "decompress it first"}, asked);
  }
  const Look look = look_at(path, asked);
  if (any) return format_of_text(path, look);
  check_text(path, look, asked);
  return asked;
}

}  // namespace mezzo
