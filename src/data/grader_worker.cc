#include "grader_worker.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "grader_protocol.h"
#include "mezzo/core/error.h"

namespace mezzo {

namespace {

/// What is there to be read at once; empty at the end, none where nothing is there yet.
std::optional<std::string_view> read_some(const FileDescriptor& file, std::span<char> buffer) {
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got >= 0) return std::string_view(buffer.data(), static_cast<std::size_t>(got));
    if (errno == EAGAIN) return std::nullopt;
    if (errno != EINTR) throw io_error("read", file.path(), errno);
  }
}

}  // namespace

GraderWorker::GraderWorker(ChildCommand command, double timeout_s, const std::string& log_path)
    : command_(std::move(command)), timeout_s_(timeout_s), log_(log_path) {}

void GraderWorker::start() {
  says_errors_ = true;
  log_.forget();
  process_ = std::make_unique<ChildProcess>(command_);
}

void GraderWorker::ask(GraderQuestion question) {
  if (asked_.empty()) last_progress_ = Clock::now();
  unwritten_ += question.line;
  asked_.push_back(std::move(question));
}

std::array<pollfd, GraderWorker::fds> GraderWorker::polled() const {
  // A negative descriptor is passed over.
  std::array<pollfd, fds> polled = {pollfd{-1, POLLIN, 0}, pollfd{-1, POLLIN, 0}, pollfd{-1, POLLOUT, 0}};
  if (!runs()) return polled;
  if (says_errors_) polled[0].fd = process_->error_output().get();
  polled[1].fd = process_->output().get();
  if (!unwritten_.empty()) polled[2].fd = process_->input().get();
  return polled;
}

GraderWorker::Clock::time_point GraderWorker::deadline() const {
  if (!runs() || asked_.empty()) return Clock::time_point::max();
  return last_progress_ +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s_));
}

void GraderWorker::work(const std::array<pollfd, fds>& polled, const AnswerSink& sink) {
  if (polled[0].revents != 0) read_errors();
  if (polled[1].revents != 0) read_answers(sink);
  if (polled[2].revents != 0 && runs()) write_questions();
}

void GraderWorker::write_questions() {
  std::size_t written = 0;
  while (written < unwritten_.size()) {
    const ssize_t put =
        ::write(process_->input().get(), unwritten_.data() + written, unwritten_.size() - written);
    if (put >= 0) {
      written += static_cast<std::size_t>(put);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno == EPIPE) {
      fail_ended("it closed its standard input");
    } else if (errno != EINTR) {
      throw io_error("write", "a grader's standard input", errno);
    }
  }
  unwritten_.erase(0, written);
}

void GraderWorker::read_answers(const AnswerSink& sink) {
  std::array<char, 65536> buffer;
  const auto read = read_some(process_->output(), buffer);
  if (!read) return;
  if (read->empty()) fail_ended("it closed its standard output");
  std::string_view text = *read;
  for (std::size_t end = text.find('\n'); end != text.npos; end = text.find('\n')) {
    unread_ += text.substr(0, end);
    text.remove_prefix(end + 1);
    if (unread_.size() > max_line) break;
    const std::string line = std::exchange(unread_, {});
    take(line, sink);
  }
  unread_ += text;
  if (unread_.size() > max_line)
    throw Error("it wrote a line of more than {} bytes, which no answer has", max_line);
}

void GraderWorker::take(std::string_view line, const AnswerSink& sink) {
  GraderAnswer answer = answer_in(line);
  if (asked_.empty() && !answer.id) throw Error("it gave more answers than it was asked for");
  const auto of = answer.id ? std::ranges::find(asked_, *answer.id, &GraderQuestion::id) : asked_.begin();
  if (of == asked_.end()) {
    throw Error("it answered the id {}, which it was not asked or has answered already", *answer.id);
  }
  sink(*of, std::move(answer.grade));
  asked_.erase(of);
  last_progress_ = Clock::now();
}

void GraderWorker::read_errors() {
  std::array<char, 65536> buffer;
  const auto read = read_some(process_->error_output(), buffer);
  if (read && read->empty()) says_errors_ = false;
  if (read) log_.add(*read);
}

void GraderWorker::fail_ended(const char* otherwise) {
  using namespace std::chrono_literals;
  // A pipe is closed a moment before the process has ended.
  std::optional<std::string> ending = process_->ending();
  for (int tries = 0; !ending && tries < 100; ++tries) {
    std::this_thread::sleep_for(1ms);
    ending = process_->ending();
  }
  for (int reads = 0; says_errors_ && reads < 64; ++reads) read_errors();  // its last words
  throw Error("{}", ending ? "it " + *ending : otherwise);
}

void GraderWorker::check_deadline() const {
  if (Clock::now() < deadline()) return;
  throw Error("it gave no answer within {} s (data.task.reward.timeout_s)", timeout_s_);
}

std::deque<GraderQuestion> GraderWorker::take_back() {
  process_.reset();
  unwritten_.clear();
  unread_.clear();
  return std::exchange(asked_, {});
}

void GraderWorker::ask_to_end() {
  if (runs()) process_->ask_to_end();
}

}  // namespace mezzo
