#pragma once
// Messages for people, on standard error: information as plain lines, "mezzo: warning: ..." and "mezzo:
// error: ...". A Logger is passed by reference; there is no global one.
#include <fmt/format.h>

#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

namespace mezzo {

/// The least important message that is written.
enum class LogLevel { debug, info, warning, error };

struct LoggerOptions {
  int rank = 0;
  std::string host = {};  ///< named in a message about one rank, if not empty
  LogLevel level = LogLevel::info;
  std::FILE* stream = stderr;  ///< not owned
};

/// Safe to use from several threads. Every message is one line: line breaks and control characters in it are
/// escaped, so that a file's content cannot forge another line or move a terminal's cursor.
class Logger {
 public:
  explicit Logger(const LoggerOptions& options = {});
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  int rank() const;
  const LoggerOptions& options() const;

  // What holds for the whole job: rank 0 writes it, other ranks do not.
  template <typename... Args>
  void debug(fmt::format_string<Args...> format, Args&&... args) {
    write(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) {
    write(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
  }
  /// The same warning is written once.
  template <typename... Args>
  void warning(fmt::format_string<Args...> format, Args&&... args) {
    write(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
  }

  // What one rank alone knows: that rank writes it, behind its number and host unless it is rank 0.
  template <typename... Args>
  void rank_warning(fmt::format_string<Args...> format, Args&&... args) {
    write_rank(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
  }

  /// Why the process ends. Written as it is, by whichever rank calls it.
  void error(const std::string& message);

  /// Keeps `text` as the last line of a terminal, under whatever is written meanwhile; "" takes it away. Rank
  /// 0 only, and without effect where there is no room for it. It is cut to the window's width as that is
  /// when the line is drawn, so that it never wraps.
  void status(const std::string& text);
  /// Columns that status() has now: 0 where it shows nothing, because the stream is no terminal or the level
  /// is above info.
  std::size_t status_columns() const;

 private:
  void write(LogLevel level, const std::string& message);
  void write_rank(LogLevel level, const std::string& message);

  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace mezzo
