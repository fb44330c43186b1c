#pragma once
// Programs of the user's as graders. A thread speaks with all processes of one, so that they work while the
// caller goes on.
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "grader_worker.h"
#include "mezzo/core/config.h"
#include "mezzo/data/reward.h"
#include "mezzo/io/files.h"

namespace mezzo {

/// A process that fails is started anew, with what it has not answered. The question that it had to answer
/// first is then asked alone; one that more than `restarts` processes failed on has no grade. A worker that
/// could not answer more than `restarts` questions in a row is not started again before the next batch.
class GraderProgram final : public Grader {
 public:
  /// Starts the processes.
  GraderProgram(const RewardConfig& config, const GraderSurroundings& surroundings);
  ~GraderProgram() override;

  void submit(Completion completion) override;
  std::vector<Grade> finish() override;

 private:
  /// What becomes of a process within a batch.
  struct Worker {
    GraderWorker process;
    bool careful = false;   ///< it failed: one question at a time until it answers
    int unanswered = 0;     ///< questions given up in a row
    bool given_up = false;  ///< until the next batch
  };
  struct Batch {
    std::int64_t first_id = 0;
    std::vector<Grade> grades;
    std::size_t graded = 0;
    std::size_t bad = 0, failures = 0;
    std::string first_problem = {};
  };

  // Of the thread.
  void run(std::promise<void>& started);
  void serve();
  bool take_questions();
  void dispatch();
  Worker* idlest();
  void wait_and_work();
  void grade(const GraderQuestion& question, Grade grade);
  void failed(Worker& worker, const std::string& what);
  void give_up(const GraderQuestion& question, const std::string& what);
  void end_processes();

  void wake() const;
  std::string named(const Worker& worker, const std::string& what) const;

  const int restarts_;
  const OnRewardError on_error_;
  const int rank_;
  const std::function<void(const std::string&)> warn_;
  FileDescriptor wake_;
  std::vector<std::unique_ptr<Worker>> workers_;  ///< of the thread, once it runs
  std::deque<GraderQuestion> queue_;              ///< of the thread: not asked yet
  std::string last_problem_;                      ///< of the thread

  std::mutex mutex_;  ///< over all below
  std::condition_variable changed_;
  std::deque<GraderQuestion> submitted_;
  std::int64_t next_id_ = 0;
  Batch batch_;
  bool new_batch_ = false;
  bool stop_ = false;
  std::exception_ptr error_;

  std::jthread thread_;  ///< the last: it uses all of the others
};

}  // namespace mezzo
