#pragma once
// CSV as RFC 4180 describes it, and the same with tabs.
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/io/byte_source.h"

namespace mezzo {

/// The records of a text of fields. A field in double quotes may hold separators, line ends and, doubled,
/// quotes. Records end with LF or CRLF. A byte order mark before the first is passed over.
class DelimitedReader {
 public:
  DelimitedReader(std::unique_ptr<ByteSource> source, char separator);

  /// The next record's fields into `fields`; false at the end. Blank lines (nothing but spaces) are passed
  /// over at the end of the file alone. InputError with file and line for what is no such text: a blank line
  /// in the middle, text behind a closing quote, a quote that is not closed, a quote within a field without
  /// quotes (with tabs that is a text like any other), bytes that are no UTF-8, and a record of more than
  /// `limit` bytes.
  bool next(std::vector<std::string>& fields);
  /// Of the first line of the record that came last, from 1.
  std::size_t line() const { return line_; }

  static constexpr std::size_t limit = std::size_t{1} << 30;

 private:
  int peek();
  int get();
  bool read_record(std::vector<std::string>& fields);
  void read_quoted(std::string& field);
  void read_plain(std::string& field);
  void add(std::string& field, char byte);
  bool ends_record(int byte);
  [[noreturn]] void fail(const std::string& problem) const;

  std::unique_ptr<ByteSource> source_;
  char separator_;
  std::string block_;
  std::size_t at_ = 0;
  std::size_t line_ = 0, current_line_ = 1;
  std::size_t record_bytes_ = 0;
};

}  // namespace mezzo
