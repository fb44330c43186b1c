#include "grader_log.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

constexpr std::size_t longest_line = 300;  ///< of last_line()
constexpr std::string_view full = "\n[the log is full: what follows is not kept]\n";

}  // namespace

GraderLog::GraderLog(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  file_ = FileDescriptor::open(path_, O_WRONLY | O_CREAT | O_APPEND, "create");
  size_ = file_.size();
  if (size_ < max_bytes) return;
  file_.truncate(0);
  size_ = 0;
}

void GraderLog::add(std::string_view text) {
  note_lines(text);
  if (!file_ || size_ >= max_bytes) return;
  const std::uint64_t room = max_bytes - size_;
  write(text.substr(0, room));
  if (text.size() >= room && file_) write(full);
}

void GraderLog::write(std::string_view text) {
  try {
    file_.write_all(bytes_of(text));
    size_ += text.size();
  } catch (const IoError& error) {
    file_ = {};
    problem_ = error.what();
  }
}

void GraderLog::note_lines(std::string_view text) {
  for (const char c : text) {
    if (c != '\n') {
      if (line_.size() < longest_line) line_ += c;
      continue;
    }
    if (line_.find_first_not_of(" \t\r") != line_.npos) last_ = line_;
    line_.clear();
  }
}

void GraderLog::forget() {
  line_.clear();
  last_.clear();
}

}  // namespace mezzo
