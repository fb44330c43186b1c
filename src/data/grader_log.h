#pragma once
// What a grader's program says on standard error, kept in a file of bounded size.
#include <cstdint>
#include <string>
#include <string_view>

#include "mezzo/io/files.h"

namespace mezzo {

class GraderLog {
 public:
  static constexpr std::uint64_t max_bytes = std::uint64_t{1} << 20;

  /// Goes on with the file, or begins it anew where it is full. "": keeps no file.
  explicit GraderLog(std::string path);

  const std::string& path() const { return path_; }
  /// Adds to the file as long as there is room.
  void add(std::string_view text);
  /// Why the file could not be written and was given up; "" where it could.
  const std::string& problem() const { return problem_; }
  /// The last line that was not blank, cut where it is long; "" where there was none since forget().
  const std::string& last_line() const { return last_; }
  void forget();

 private:
  void write(std::string_view text);
  void note_lines(std::string_view text);

  std::string path_;
  FileDescriptor file_;
  std::uint64_t size_ = 0;
  std::string line_;  ///< begun
  std::string last_;
  std::string problem_;
};

}  // namespace mezzo
