#pragma once
// What the process and its threads ask of the system.
#include <concepts>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "mezzo/core/error.h"

namespace mezzo {

/// Lets what a system call cannot do come back as its error, where it would end the process without a word: a
/// write to a pipe or terminal that nobody reads any more (SIGPIPE), a file that outgrows ulimit -f
/// (SIGXFSZ). main() calls it first.
void prepare_process();

/// The version of the library whose exp, log, sin and cos this process calls: "glibc 2.36".
std::string math_library();

/// Error: the system starts no thread for `purpose`.
[[noreturn]] void fail_thread(const char* purpose, const std::system_error& error);

/// A thread that runs `work`. Error naming `purpose` where the system has none to give.
template <std::invocable Work>
std::jthread start_thread(const char* purpose, Work&& work) {
  try {
    return std::jthread(std::forward<Work>(work));
  } catch (const std::system_error& error) {
    fail_thread(purpose, error);
  }
}

/// Error unless `count` more threads can live at once. For libraries that end the process when they cannot
/// start theirs (OpenMP).
void check_threads(int count, const char* purpose);

}  // namespace mezzo
