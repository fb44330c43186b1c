#include "mezzo/io/delimited_reader.h"

#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/file_kind.h"

namespace mezzo {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;
constexpr int end_of_file = -1;

bool is_blank(const std::vector<std::string>& fields) {
  return fields.size() == 1 && fields[0].find_first_not_of(" \t") == std::string::npos;
}

}  // namespace

DelimitedReader::DelimitedReader(std::unique_ptr<ByteSource> source, char separator)
    : source_(std::move(source)), separator_(separator), block_(read_head(*source_, block_bytes)) {
  if (block_.starts_with(byte_order_mark)) at_ = byte_order_mark.size();
}

int DelimitedReader::peek() {
  if (at_ == block_.size()) {
    block_ = read_head(*source_, block_bytes);
    at_ = 0;
    if (block_.empty()) return end_of_file;
  }
  return static_cast<unsigned char>(block_[at_]);
}

int DelimitedReader::get() {
  const int byte = peek();
  if (byte == end_of_file) return byte;
  ++at_;
  if (byte == '\n') ++current_line_;
  return byte;
}

void DelimitedReader::fail(const std::string& problem) const {
  throw InputError("{}:{}: {}", source_->path(), current_line_, problem);
}

void DelimitedReader::add(std::string& field, char byte) {
  field += byte;
  if (++record_bytes_ > limit) fail(fmt::format("the record has more than {} bytes", limit));
}

/// Behind the opening quote, up to and with the closing one.
void DelimitedReader::read_quoted(std::string& field) {
  const std::size_t opened = current_line_;
  for (int byte = get();; byte = get()) {
    if (byte == end_of_file) {
      current_line_ = opened;
      fail("a quoted field is not closed, expected a \" up to the end of the file");
    }
    if (byte == '"') {
      if (peek() != '"') return;
      get();
    }
    add(field, static_cast<char>(byte));
  }
}

void DelimitedReader::read_plain(std::string& field) {
  while (true) {
    const int byte = peek();
    if (byte == end_of_file || byte == '\n' || byte == '\r' || byte == separator_) return;
    if (byte == '"' && separator_ == ',') {
      fail("a \" within a field without quotes; expected the field in quotes, and quotes in it doubled");
    }
    add(field, static_cast<char>(get()));
  }
}

/// Takes the end of a record that begins with `byte`.
bool DelimitedReader::ends_record(int byte) {
  if (byte == end_of_file) return true;
  if (byte == '\r') {
    get();
    if (peek() != '\n')
      fail("a carriage return without a line feed, expected LF or CRLF at the end of a line");
    byte = '\n';
  }
  if (byte != '\n') return false;
  get();
  return true;
}

bool DelimitedReader::read_record(std::vector<std::string>& fields) {
  fields.clear();
  if (peek() == end_of_file) return false;
  line_ = current_line_;
  record_bytes_ = 0;
  while (true) {
    std::string field;
    if (peek() == '"') {
      get();
      read_quoted(field);
    } else {
      read_plain(field);
    }
    if (const auto broken = find_invalid_utf8(field)) {
      throw InputError("{}:{}: field {} is not UTF-8 from its byte {} on", source_->path(), line_,
                       fields.size() + 1, *broken + 1);
    }
    fields.push_back(std::move(field));
    const int byte = peek();
    if (ends_record(byte)) return true;
    if (byte != separator_) {
      fail(fmt::format("text behind the closing quote of a field, expected {} or the end of the line",
                       separator_ == '\t' ? "a tab" : std::string("a ") + separator_));
    }
    get();
  }
}

bool DelimitedReader::next(std::vector<std::string>& fields) {
  if (!read_record(fields)) return false;
  if (!is_blank(fields)) return true;
  const std::size_t blank = line_;
  while (read_record(fields)) {
    if (is_blank(fields)) continue;
    throw InputError("{}:{}: the line is blank, expected a record", source_->path(), blank);
  }
  return false;
}

}  // namespace mezzo
