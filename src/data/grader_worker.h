#pragma once
// One process of a grader's program: what it was asked, what it answers, and how long that takes.
#include <poll.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "grader_log.h"
#include "mezzo/data/reward.h"
#include "mezzo/io/child_process.h"

namespace mezzo {

/// A completion on its way to its grade.
struct GraderQuestion {
  std::int64_t id = 0;
  std::string line = {};  ///< as the program gets it
  int failures = 0;       ///< of programs that were to answer it
};

/// Used by one thread. Whatever the program does wrong is an Error that says it, "it exited with code 1":
/// then take_back() is to be called.
class GraderWorker {
 public:
  using Clock = std::chrono::steady_clock;
  using AnswerSink = std::function<void(const GraderQuestion&, Grade)>;
  static constexpr std::size_t max_line = std::size_t{1} << 20;  ///< bytes of an answer
  static constexpr std::size_t fds = 3;                          ///< that are polled

  GraderWorker(ChildCommand command, double timeout_s, const std::string& log_path);

  bool runs() const { return process_ != nullptr; }
  void start();
  /// Asks it; a process that does not run yet is asked once it does.
  void ask(GraderQuestion question);
  /// Questions without an answer.
  std::size_t open() const { return asked_.size(); }
  /// What to wait for; without a process nothing.
  std::array<pollfd, fds> polled() const;
  /// When the next answer has to be there; Clock::time_point::max() where none has.
  Clock::time_point deadline() const;
  /// Does what poll() says can be done. Hands on the answers.
  void work(const std::array<pollfd, fds>& polled, const AnswerSink& sink);
  void check_deadline() const;
  /// Kills the process; its questions without an answer, in their order.
  std::deque<GraderQuestion> take_back();
  /// Asks the process to end; take_back() or the destructor kills it.
  void ask_to_end();
  bool has_ended() const { return !runs() || process_->ending().has_value(); }

  const GraderLog& log() const { return log_; }

 private:
  void write_questions();
  void read_answers(const AnswerSink& sink);
  void read_errors();
  void take(std::string_view line, const AnswerSink& sink);
  [[noreturn]] void fail_ended(const char* otherwise);

  ChildCommand command_;
  double timeout_s_;
  std::unique_ptr<ChildProcess> process_;
  std::deque<GraderQuestion> asked_;
  std::string unwritten_, unread_;
  bool says_errors_ = true;  ///< its standard error is open
  Clock::time_point last_progress_{};
  GraderLog log_;
};

}  // namespace mezzo
