#include "error_line.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string_view>

#include "mezzo/core/printable.h"

namespace mezzo {

void write_error_line(const std::string& message) {
  const std::string line = "mezzo: error: " + printable(message) + '\n';
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

}  // namespace mezzo
