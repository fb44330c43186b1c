#pragma once
// Messages between ranks, the heartbeats beside them, and what they tell of who lives.
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include "failure_detector.h"
#include "mpi_mail.h"

namespace mezzo {

/// Waiting that leaves the processor to ranks and threads that have work: spin while an answer costs
/// microseconds, then yield, then sleep a fiftieth of the time waited so far, so that no wait gets 2% longer.
class Pause {
 public:
  void operator()();

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// Mail, and a thread that sends heartbeats and keeps messages moving while this rank computes: from rank 0
/// to all others, from these to rank 0. All MPI calls of a job between its start and its end go through here,
/// one at a time; no call of this class waits for another rank.
class Messenger {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Doing {
    Phase phase = Phase::starting;
    std::uint64_t step = 0;
  };

  /// `doing`: what this rank is at, asked by the thread.
  Messenger(MPI_Comm comm, int rank, int size, std::function<Doing()> doing);
  ~Messenger() { stop(); }
  Messenger(const Messenger&) = delete;
  Messenger& operator=(const Messenger&) = delete;

  /// From here on heartbeats tell that this rank has come to sum `sequence`, several within `silence`.
  void begin_sum(std::uint64_t sequence, Seconds silence);
  void send(int peer, Tag tag, Words words);
  /// A message that is here, if there is one; never a heartbeat. `but`: left for later.
  std::optional<Message> next(std::optional<Tag> but = std::nullopt);
  /// Waits until MPI has taken what was sent, at most until the deadline.
  void flush(Time deadline);
  /// Whether another rank has printed the job's message.
  bool reported();
  Seconds interval();  ///< between this rank's heartbeats

  /// look(const FailureDetector&) with nothing else under way.
  template <typename Look>
  auto look(Look&& look) {
    const std::lock_guard lock(mutex_);
    return std::forward<Look>(look)(std::as_const(detector_));
  }
  /// call(), which calls MPI, with no other thread in MPI and none coming while it lasts.
  template <typename Call>
  void alone(Call&& call) {
    const std::lock_guard lock(mutex_);
    std::forward<Call>(call)();
  }

  /// Ends the heartbeats.
  void stop();

 private:
  void beat(const std::stop_token& stop);
  void pump();  // with the lock held

  const int rank_;
  const int size_;
  const std::function<Doing()> doing_;

  std::mutex mutex_;  // of everything below
  std::condition_variable_any wake_;
  Mail mail_;
  FailureDetector detector_;
  std::deque<Message> inbox_;  // what has come, but for heartbeats
  Seconds interval_;
  std::uint64_t arrived_ = 0;  // the sum that this rank has come to
  Time pumped_ = std::chrono::steady_clock::now();
  bool reported_ = false;
  std::exception_ptr failure_;  // of the thread
  std::jthread thread_;
};

}  // namespace mezzo
