#include "mezzo/io/json_lines.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/io/line_reader.h"

namespace mezzo {
namespace {

constexpr std::size_t write_bytes = 1u << 20;

/// Bytes behind the last line feed.
std::uint64_t torn_bytes(const FileDescriptor& file) {
  std::array<std::byte, 4096> block{};
  const std::uint64_t size = file.size();
  std::uint64_t end = size;
  while (end > 0) {
    const std::uint64_t begin = end > block.size() ? end - block.size() : 0;
    std::size_t count = file.read_at(begin, std::span(block).first(end - begin));
    for (; count > 0; --count) {
      if (block[count - 1] == std::byte{'\n'}) return size - (begin + count);
    }
    end = begin;
  }
  return size;
}

}  // namespace

JsonLinesWriter::JsonLinesWriter(const std::string& path) {
  const bool existed = file_exists(path);
  file_ = FileDescriptor::open(path, O_RDWR | O_CREAT | O_APPEND);
  if (!existed) sync_directory(parent_directory(path));
  discarded_bytes_ = torn_bytes(file_);
  if (discarded_bytes_ > 0) file_.truncate(file_.size() - discarded_bytes_);
}

void JsonLinesWriter::append(const nlohmann::ordered_json& line) {
  std::string text = line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text += '\n';
  file_.write_all(bytes_of(text));
}

void JsonLinesWriter::sync() { file_.sync_data(); }

void read_json_lines(const std::string& path, const std::function<void(const nlohmann::json&)>& see) {
  if (!file_exists(path)) return;
  LineReader input(path);
  std::string line;
  while (input.next(line)) {
    const auto value = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (input.is_whole() && value.is_object()) see(value);
  }
}

JsonLinesCut truncate_json_lines(const std::string& path,
                                 const std::function<bool(const nlohmann::json&)>& keep) {
  JsonLinesCut cut;
  if (!file_exists(path)) return cut;
  LineReader input(path);
  AtomicFile output(path);
  std::string kept;  // lines not yet given to the system
  std::string line;
  while (input.next(line)) {
    const bool torn = !input.is_whole();  // even if it parses, the writer had not finished it
    const auto value = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (torn || !value.is_object()) {
      ++cut.malformed;
      if (cut.first_malformed == 0) cut.first_malformed = input.number();
    } else if (!keep(value)) {
      ++cut.removed;
    } else {
      ++cut.kept;
      kept.append(line) += '\n';
      if (kept.size() >= write_bytes) output.write(std::exchange(kept, {}));
    }
  }
  if (cut.removed + cut.malformed > 0) {
    output.write(kept);
    output.commit();
  }
  return cut;
}

}  // namespace mezzo
