#include "error_line.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <thread>

#include "mezzo/core/printable.h"

namespace mezzo {

void write_error_line(const std::string& message) {
  std::string text = message;
  // Libraries break lines in their messages: a blank reads better there than an escape.
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  const std::string line = "mezzo: error: " + printable(text) + '\n';
  std::fflush(stderr);
  // There is nobody left to tell when standard error itself fails.
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t written = ::write(STDERR_FILENO, rest.data(), rest.size());
    if (written > 0) {
      rest.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      return;
    }
  }
}

void write_last_error_line(const std::string& message) {
  write_error_line(message);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
}

}  // namespace mezzo
