#pragma once
// Text files read line by line.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/io/byte_source.h"

namespace mezzo {

/// The lines of a file, however long the file is.
class LineReader {
 public:
  explicit LineReader(std::unique_ptr<ByteSource> source);
  /// Of open_source(path).
  explicit LineReader(const std::string& path);

  /// The next line, without its line feed, into `line`; false at the end of the file. InputError for a line
  /// of more than `limit` bytes.
  bool next(std::string& line);
  /// Of the line that came last, from 1.
  std::size_t number() const { return number_; }
  /// Whether the line that came last ended with a line feed: a writer that was killed leaves one that does
  /// not.
  bool is_whole() const { return is_whole_; }

  static constexpr std::size_t limit = std::size_t{1} << 30;

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<char> block_;
  std::string_view rest_;  ///< of the block, not yet given away
  std::size_t number_ = 0;
  bool is_whole_ = false;
};

}  // namespace mezzo
