#include "mezzo/core/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

namespace mezzo {

bool open_standard_streams() {
  for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    // The system gives the lowest number that is free, which is this one.
    const int opened = ::open("/dev/null", descriptor == STDIN_FILENO ? O_RDONLY : O_WRONLY);
    if (opened != descriptor) return false;
  }
  return true;
}

}  // namespace mezzo
