#include "grader_program.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <utility>

#include "grader_protocol.h"
#include "mezzo/core/error.h"
#include "mezzo/core/process.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

using Clock = GraderWorker::Clock;

constexpr const char* key = "data.task.reward.command";
/// Questions that a process has at a time: it never waits for the next, and none waits long behind others.
constexpr std::size_t most_open = 32;
constexpr auto time_to_end = std::chrono::seconds(1);

/// What a program sees of the environment: nothing secret that is not named.
std::vector<std::string> environment_of(const RewardConfig& config) {
  std::vector<std::string> environment;
  const auto add = [&](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    if (value != nullptr) environment.push_back(name + "=" + value);
    return value != nullptr;
  };
  for (const char* name : {"PATH", "HOME", "LANG", "TMPDIR"}) add(name);
  for (const std::string& name : config.environment) {
    if (!add(name)) {
      throw UsageError("data.task.reward.environment: {} is not set; expected names of variables that are",
                       quote(name));
    }
  }
  return environment;
}

ChildCommand command_of(const RewardConfig& config, const GraderSurroundings& surroundings) {
  const char* path = std::getenv("PATH");
  return {.arguments = config.command,
          .search_path = path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path,
          .environment = environment_of(config),
          .working_directory = surroundings.working_directory};
}

void block_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace

GraderProgram::GraderProgram(const RewardConfig& config, const GraderSurroundings& surroundings)
    : restarts_(static_cast<int>(config.restarts)),
      on_error_(config.on_error),
      rank_(surroundings.rank),
      warn_(surroundings.warn),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "an event") {
  if (!wake_) throw io_error("make", "an event", errno);
  const ChildCommand command = command_of(config, surroundings);
  for (std::int64_t w = 0; w < config.workers; ++w) {
    const std::string log = surroundings.log_folder.empty()
                                ? ""
                                : fmt::format("{}/{}", surroundings.log_folder, grader_log_name(rank_, w));
    workers_.push_back(std::make_unique<Worker>(Worker{.process = {command, config.timeout_s, log}}));
  }
  std::promise<void> started;
  std::future<void> start = started.get_future();
  thread_ =
      start_thread("the grader's program", [&, promise = std::move(started)]() mutable { run(promise); });
  try {
    start.get();
  } catch (const Error& error) {
    throw UsageError("{}: {}", key, error.what());
  }
}

GraderProgram::~GraderProgram() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake();
}

void GraderProgram::wake() const {
  const std::uint64_t one = 1;
  // It fails only where so many wakes are unread that one more changes nothing.
  static_cast<void>(!::write(wake_.get(), &one, sizeof one));
}

void GraderProgram::submit(Completion completion) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;  // finish() says it
    const std::int64_t id = next_id_++;
    batch_.grades.emplace_back();
    submitted_.push_back({.id = id, .line = question_of(id, completion)});
  }
  wake();
}

std::vector<Grade> GraderProgram::finish() {
  Batch batch;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return error_ || batch_.graded == batch_.grades.size(); });
    if (error_) std::rethrow_exception(error_);
    batch = std::exchange(batch_, {.first_id = next_id_, .grades = {}});
    new_batch_ = true;
  }
  if (batch.failures > 0 && warn_) {
    const std::string bad =
        batch.bad == 0 ? ""
                       : fmt::format("{} of {} completions have no reward; ", batch.bad, batch.grades.size());
    warn_(fmt::format("{}: {}the program failed {} time{}, first {}", key, bad, batch.failures,
                      batch.failures == 1 ? "" : "s", batch.first_problem));
  }
  return std::move(batch.grades);
}

// ---- the thread -----------------------------------------------------------------------------------------

void GraderProgram::run(std::promise<void>& started) {
  // Signals are for the thread that waits for them; a pipe without a reader is the error of a write.
  block_signals();
  try {
    for (const auto& worker : workers_) worker->process.start();
  } catch (...) {
    started.set_exception(std::current_exception());
    return;
  }
  started.set_value();
  try {
    serve();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    changed_.notify_all();
  }
  end_processes();
}

void GraderProgram::serve() {
  while (take_questions()) {
    dispatch();
    wait_and_work();
  }
}

/// False where the grader goes.
bool GraderProgram::take_questions() {
  const std::lock_guard lock(mutex_);
  if (stop_) return false;
  if (std::exchange(new_batch_, false)) {
    for (const auto& worker : workers_) {
      worker->given_up = false;
      worker->unanswered = 0;
    }
  }
  std::ranges::move(submitted_, std::back_inserter(queue_));
  submitted_.clear();
  return true;
}

/// The worker that the next question goes to, or nullptr where all have enough.
GraderProgram::Worker* GraderProgram::idlest() {
  Worker* best = nullptr;
  for (const auto& worker : workers_) {
    const std::size_t open = worker->process.open();
    if (worker->given_up || open >= (worker->careful ? 1 : most_open)) continue;
    if (best == nullptr || open < best->process.open()) best = worker.get();
  }
  return best;
}

void GraderProgram::dispatch() {
  while (!queue_.empty()) {
    Worker* worker = idlest();
    if (worker == nullptr) break;
    try {
      GraderQuestion question = std::move(queue_.front());
      queue_.pop_front();
      worker->process.ask(std::move(question));
      if (!worker->process.runs()) worker->process.start();
    } catch (const Error& error) {
      failed(*worker, error.what());
    }
  }
  // Also for questions that come after the last worker was given up.
  if (!std::ranges::all_of(workers_, [](const auto& worker) { return worker->given_up; })) return;
  for (const GraderQuestion& question : std::exchange(queue_, {})) give_up(question, last_problem_);
}

void GraderProgram::wait_and_work() {
  std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
  Clock::time_point deadline = Clock::time_point::max();
  for (const auto& worker : workers_) {
    std::ranges::copy(worker->process.polled(), std::back_inserter(polled));
    deadline = std::min(deadline, worker->process.deadline());
  }
  int timeout_ms = -1;
  if (deadline != Clock::time_point::max()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max()));
  }
  if (::poll(polled.data(), polled.size(), timeout_ms) < 0 && errno != EINTR)
    throw Error("cannot wait for the grader's program: {}",
                std::error_code(errno, std::system_category()).message());
  std::uint64_t wakes = 0;
  static_cast<void>(!::read(wake_.get(), &wakes, sizeof wakes));  // non-blocking; there may be none
  auto begin = polled.begin() + 1;
  for (const auto& worker : workers_) {
    std::array<pollfd, GraderWorker::fds> of_worker;
    std::copy_n(begin, of_worker.size(), of_worker.begin());
    begin += GraderWorker::fds;
    try {
      worker->process.work(of_worker, [&](const GraderQuestion& question, Grade given) {
        worker->careful = false;
        worker->unanswered = 0;
        grade(question, std::move(given));
      });
      worker->process.check_deadline();
    } catch (const Error& error) {
      failed(*worker, error.what());
    }
  }
}

void GraderProgram::grade(const GraderQuestion& question, Grade given) {
  const std::lock_guard lock(mutex_);
  batch_.grades[static_cast<std::size_t>(question.id - batch_.first_id)] = std::move(given);
  if (++batch_.graded == batch_.grades.size()) changed_.notify_all();
}

std::string GraderProgram::named(const Worker& worker, const std::string& what) const {
  const auto number = std::ranges::find(workers_, &worker, &std::unique_ptr<Worker>::get) - workers_.begin();
  const GraderLog& log = worker.process.log();
  const std::string said = log.last_line().empty() ? "" : fmt::format("; it said {}", quote(log.last_line()));
  std::string where = log.path().empty() ? "" : fmt::format(" ({})", log.path());
  if (!log.problem().empty()) where = fmt::format(" ({})", log.problem());
  return fmt::format("process {} of rank {}: {}{}{}", number, rank_, what, said, where);
}

void GraderProgram::failed(Worker& worker, const std::string& what) {
  const std::string problem = named(worker, what);
  last_problem_ = problem;
  std::deque<GraderQuestion> questions = worker.process.take_back();
  worker.careful = true;
  {
    const std::lock_guard lock(mutex_);
    if (batch_.failures++ == 0) batch_.first_problem = problem;
  }
  if (questions.empty()) return;  // it is started when there is something to ask
  if (++questions.front().failures > restarts_) {
    give_up(questions.front(), problem);
    questions.pop_front();
    if (++worker.unanswered > restarts_) worker.given_up = true;
  }
  std::ranges::move(queue_, std::back_inserter(questions));
  queue_ = std::move(questions);
}

void GraderProgram::give_up(const GraderQuestion& question, const std::string& problem) {
  if (on_error_ == OnRewardError::stop) {
    throw Error("{}: a completion has no reward (data.task.reward.on_error: stop): {}", key, problem);
  }
  {
    const std::lock_guard lock(mutex_);
    ++batch_.bad;
  }
  grade(question, {.good = false, .reward = 0, .metrics = {}});
}

void GraderProgram::end_processes() {
  for (const auto& worker : workers_) worker->process.ask_to_end();
  const auto has_ended = [](const auto& worker) { return worker->process.has_ended(); };
  for (const auto begin = Clock::now(); Clock::now() - begin < time_to_end;) {
    if (std::ranges::all_of(workers_, has_ended)) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (const auto& worker : workers_) worker->process.take_back();
}

}  // namespace mezzo
