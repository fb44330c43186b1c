#include "mezzo/core/process.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
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
  const auto without_room = [] {
    // A stack that no address space holds. A limit on the address space would end a sanitizer's own
    // allocations first.
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstacksize(&attributes, std::size_t{1} << 60) != 0 ||
        pthread_setattr_default_np(&attributes) != 0) {
      _exit(9);
    }
    try {
      check_threads(2, "computing");
    } catch (const Error& error) {
      fputs(error.what(), stderr);
      _exit(1);
    }
    _exit(0);
  };
  EXPECT_EXIT(without_room(), testing::ExitedWithCode(1), "cannot start a thread for computing: ");
  EXPECT_NO_THROW(check_threads(3, "computing"));
  EXPECT_NO_THROW(check_threads(0, "computing"));
}

TEST(Process, NamesTheLibraryOfItsMaths) {
  EXPECT_TRUE(math_library().starts_with("glibc 2.")) << math_library();
}

}  // namespace
}  // namespace mezzo
