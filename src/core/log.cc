#include "mezzo/core/log.h"

#include <spdlog/formatter.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <string_view>

#include "mezzo/core/error.h"
#include "mezzo/core/printable.h"
#include "mezzo/core/utf8.h"

namespace mezzo {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  throw Error("unknown log level {}", static_cast<int>(level));
}

class LineFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto append = [&](std::string_view text) { out.append(text.data(), text.data() + text.size()); };
    if (message.level == spdlog::level::warn) append("mezzo: warning: ");
    if (message.level == spdlog::level::err) append("mezzo: error: ");
    append({message.payload.data(), message.payload.size()});
    append("\n");
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<LineFormatter>(); }
};

/// As much of `text`, which printable() has made, as fits into `columns` of a terminal. A character takes one
/// column, or two where it may be a wide one: those begin at U+1100. No character is cut, and none takes
/// more.
std::string cut_to_columns(std::string_view text, std::size_t columns) {
  constexpr char32_t first_wide = 0x1100;
  std::string out;
  while (!text.empty()) {
    const std::string_view character = text.substr(0, utf8_length(text));
    const std::size_t width = first_code_point(character).value >= first_wide ? 2 : 1;
    if (width > columns) break;
    columns -= width;
    if (character == "\t") out += ' ';  // a tab takes as many columns as its place makes it
    else out += character;
    text.remove_prefix(character.size());
  }
  return out;
}

// A stream whose last line, on a terminal, may be a status that gives way to messages.
class StatusSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  StatusSink(std::FILE* stream, bool shows_status)
      : base_sink(std::make_unique<LineFormatter>()), stream_(stream), shows_status_(shows_status) {}

  /// All but the window's last: a terminal that has written into it may begin another line.
  std::size_t columns() const {
    if (!shows_status_) return 0;
    constexpr std::size_t unknown_width = 80;
    winsize window{};
    const bool known = ::ioctl(::fileno(stream_), TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    return (known ? window.ws_col : unknown_width) - 1;
  }

  void set_status(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string drawing;
    erase_status(drawing);
    status_ = text;
    draw_status(drawing);
    write(drawing);
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::string drawing;
    erase_status(drawing);
    drawing.append(line.data(), line.size());
    draw_status(drawing);
    write(drawing);
  }
  void flush_() override { static_cast<void>(std::fflush(stream_)); }

 private:
  void erase_status(std::string& drawing) const {
    if (!status_.empty()) drawing += "\r\x1b[K";
  }
  void draw_status(std::string& drawing) const {
    if (!status_.empty()) drawing += cut_to_columns(status_, columns());
  }
  /// In one piece, so that other ranks' lines do not come between.
  void write(const std::string& drawing) {
    // Nothing is left to report to when standard error itself cannot be written.
    static_cast<void>(std::fwrite(drawing.data(), 1, drawing.size(), stream_));
    flush_();
  }

  std::FILE* stream_;
  bool shows_status_;
  std::string status_;
};

/// Whether a logger shows a status line.
bool shows_status(const LoggerOptions& options) {
  return options.rank == 0 && options.level <= LogLevel::info && ::isatty(::fileno(options.stream)) == 1;
}

}  // namespace

struct Logger::Implementation {
  explicit Implementation(const LoggerOptions& logger_options)
      : options(logger_options),
        sink(std::make_shared<StatusSink>(options.stream, shows_status(options))),
        logger("mezzo", sink) {
    logger.set_level(to_spdlog(options.level));
  }

  LoggerOptions options;
  std::shared_ptr<StatusSink> sink;
  spdlog::logger logger;  // not registered with spdlog
  std::mutex mutex;
  std::set<std::string> warned;
};

Logger::Logger(const LoggerOptions& options) : implementation_(std::make_unique<Implementation>(options)) {}

Logger::~Logger() { status(""); }

int Logger::rank() const { return implementation_->options.rank; }

const LoggerOptions& Logger::options() const { return implementation_->options; }

void Logger::write(LogLevel level, const std::string& message) {
  if (implementation_->options.rank == 0) write_rank(level, message);
}

void Logger::write_rank(LogLevel level, const std::string& message) {
  Implementation& self = *implementation_;
  std::string line = printable(message);
  if (self.options.rank != 0) {
    const std::string host = self.options.host.empty() ? "" : " on " + self.options.host;
    line = fmt::format("rank {}{}: {}", self.options.rank, host, line);
  }
  if (level == LogLevel::warning) {
    const std::lock_guard<std::mutex> lock(self.mutex);
    if (!self.warned.insert(line).second) return;
  }
  self.logger.log(to_spdlog(level), spdlog::string_view_t(line));
}

void Logger::error(const std::string& message) {
  implementation_->sink->set_status("");
  implementation_->logger.log(spdlog::level::err, spdlog::string_view_t(printable(message)));
}

void Logger::status(const std::string& text) {
  if (shows_status(options())) implementation_->sink->set_status(printable(text));
}

std::size_t Logger::status_columns() const { return implementation_->sink->columns(); }

}  // namespace mezzo
