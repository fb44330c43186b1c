#pragma once
// Errors are typed exceptions carrying one finished sentence; main() catches them once and prints that
// sentence behind "mezzo: error: ". A message says what is wrong, where (file and line, key, tensor), what
// was found and what was expected.
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace mezzo {

/// The process's exit status (docs/errors.md); the numbers are part of the interface.
enum class ExitCode : int { done = 0, error = 1, usage = 2, stopped = 75 };

/// Base of all errors that Mezzo throws.
class Error : public std::runtime_error {
 public:
  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
  virtual ExitCode exit_code() const { return ExitCode::error; }
};

/// The command line or the config is wrong: nothing was started.
class UsageError : public Error {
 public:
  using Error::Error;
  ExitCode exit_code() const override { return ExitCode::usage; }
};

/// A file holds something that it must not hold (model, tokenizer, data, snapshot, trajectory).
class InputError : public Error {
 public:
  using Error::Error;
};

/// The operating system refused a file operation.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A device or a device library failed, or what was asked for is not built or not there.
class DeviceError : public Error {
 public:
  using Error::Error;
};

/// Another rank failed, fell silent or disagrees.
class CommError : public Error {
 public:
  using Error::Error;
};

/// An IoError that names the operation, the path and errno's text.
IoError io_error(const std::string& operation, const std::string& path, int error_number);

/// What a file is by its st_mode, for messages: "a regular file", "a directory", "a FIFO", ...
const char* kind_of_file(unsigned mode);

/// Nearest of `candidates` to `word` by edit distance, or "" when none is near: for "did you mean".
template <typename Range>
std::string nearest(const std::string& word, const Range& candidates);

/// Levenshtein distance in bytes.
std::size_t edit_distance(const std::string& a, const std::string& b);

template <typename Range>
std::string nearest(const std::string& word, const Range& candidates) {
  std::string best;
  std::size_t best_distance = word.size() / 2 + 1;  // further away than this is no suggestion
  for (const auto& candidate : candidates) {
    const std::size_t distance = edit_distance(word, std::string(candidate));
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace mezzo
