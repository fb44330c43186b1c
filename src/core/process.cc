#include "mezzo/core/process.h"

#include <gnu/libc-version.h>
#include <signal.h>

#include <atomic>
#include <vector>

namespace mezzo {

void prepare_process() {
  for (const int number : {SIGPIPE, SIGXFSZ}) {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(number, &ignore, nullptr);  // fails for numbers that are no signal alone
  }
}

std::string math_library() { return fmt::format("glibc {}", gnu_get_libc_version()); }

void fail_thread(const char* purpose, const std::system_error& error) {
  throw Error(
      "cannot start a thread for {}: {}; the user's processes (ulimit -u), the job's (pids.max) or memory "
      "for its stack (ulimit -v, -s) are used up",
      purpose, error.code().message());
}

void check_threads(int count, const char* purpose) {
  std::atomic<bool> counted = false;
  const auto release = [&] {
    counted = true;
    counted.notify_all();
  };
  std::vector<std::jthread> threads;  // joined before `counted` goes
  try {
    for (int i = 0; i < count; ++i) threads.push_back(start_thread(purpose, [&] { counted.wait(false); }));
  } catch (...) {  // those that started have to end
    release();
    throw;
  }
  release();
}

}  // namespace mezzo
