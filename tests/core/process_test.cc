#include "mezzo/core/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace mezzo {
namespace {

TEST(Process, AWriteThatNobodyReadsIsAnErrorOfTheCall) {
  const auto write_to_nobody = [] {
    int ends[2];
    if (pipe(ends) != 0) _exit(9);
    close(ends[0]);
    _exit(write(ends[1], "x", 1) < 0 && errno == EPIPE ? 0 : 1);
  };
  EXPECT_EXIT(write_to_nobody(), testing::KilledBySignal(SIGPIPE), "");
  EXPECT_EXIT((prepare_process(), write_to_nobody()), testing::ExitedWithCode(0), "");
}

TEST(Process, ThreadsThatTheSystemDoesNotGiveAreNamed) {
  const auto without_memory = [] {
    // Less address space than a thread's stack.
    const rlimit limit{std::size_t{1} << 20, std::size_t{1} << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(9);
    try {
      check_threads(2, "computing");
    } catch (const Error& error) {
      fputs(error.what(), stderr);
      _exit(1);
    }
    _exit(0);
  };
  EXPECT_EXIT(without_memory(), testing::ExitedWithCode(1), "cannot start a thread for computing: ");
  EXPECT_NO_THROW(check_threads(3, "computing"));
  EXPECT_NO_THROW(check_threads(0, "computing"));
}

TEST(Process, NamesTheLibraryOfItsMaths) {
  EXPECT_TRUE(math_library().starts_with("glibc 2.")) << math_library();
}

}  // namespace
}  // namespace mezzo
