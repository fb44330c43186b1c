#pragma once
// Files of one JSON object a line, such as metrics.jsonl: for people and plotting scripts to follow while a
// run goes on, so each line reaches the kernel whole as soon as it is known.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "mezzo/io/files.h"

namespace mezzo {

/// Appends lines to a file, which is made when missing. A torn last line (a killed writer's) is cut off
/// first.
class JsonLinesWriter {
 public:
  explicit JsonLinesWriter(const std::string& path);
  /// One write(2) a line. Numbers that are not finite become null: JSON has none. Keys keep their order.
  void append(const nlohmann::ordered_json& line);
  void sync();  ///< everything appended is on disk when it returns
  /// Bytes of a torn last line that were cut off at the opening.
  std::uint64_t discarded_bytes() const { return discarded_bytes_; }

 private:
  FileDescriptor file_;
  std::uint64_t discarded_bytes_ = 0;
};

/// Shows each line that holds a whole JSON object, and changes nothing; a missing file has none.
void read_json_lines(const std::string& path, const std::function<void(const nlohmann::json&)>& see);

/// What truncate_json_lines() did.
struct JsonLinesCut {
  std::uint64_t kept = 0;       ///< lines
  std::uint64_t removed = 0;    ///< lines that `keep` refused
  std::uint64_t malformed = 0;  ///< lines removed because they hold no JSON object, a torn last one included
  std::uint64_t first_malformed = 0;  ///< number of the first of these, from 1; 0 = none
};

/// Keeps the lines for which `keep` holds (a run that resumes at a step keeps those up to it) and rewrites
/// the file atomically; a file that loses nothing is left alone, a missing one is no error. Lines keep their
/// bytes.
JsonLinesCut truncate_json_lines(const std::string& path,
                                 const std::function<bool(const nlohmann::json&)>& keep);

}  // namespace mezzo
