#include "mezzo/core/log.h"

#include <spdlog/formatter.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <mutex>
#include <set>
#include <string_view>

#include "mezzo/core/error.h"
#include "mezzo/core/printable.h"

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

// A stream whose last line, on a terminal, may be a status that gives way to messages.
class StatusSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  StatusSink(std::FILE* stream, bool terminal)
      : base_sink(std::make_unique<LineFormatter>()), stream_(stream), terminal_(terminal) {}

  bool terminal() const { return terminal_; }

  void set_status(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    erase_status();
    status_ = text;
    draw_status();
    flush_();
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    erase_status();
    // Nothing is left to report to when standard error itself cannot be written.
    static_cast<void>(std::fwrite(line.data(), 1, line.size(), stream_));
    draw_status();
    flush_();
  }
  void flush_() override { static_cast<void>(std::fflush(stream_)); }

 private:
  void erase_status() {
    if (!status_.empty()) static_cast<void>(std::fputs("\r\x1b[K", stream_));
  }
  void draw_status() {
    if (!status_.empty()) static_cast<void>(std::fputs(status_.c_str(), stream_));
  }

  std::FILE* stream_;
  bool terminal_;
  std::string status_;
};

}  // namespace

struct Logger::Implementation {
  explicit Implementation(const LoggerOptions& logger_options)
      : options(logger_options),
        sink(std::make_shared<StatusSink>(options.stream,
                                          options.rank == 0 && ::isatty(::fileno(options.stream)) == 1)),
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
  if (has_status()) implementation_->sink->set_status(printable(text));
}

bool Logger::has_status() const { return implementation_->sink->terminal(); }

}  // namespace mezzo
