// The exchange over MPI: a star around rank 0, made of point-to-point messages alone. Every rank sends its
// words to rank 0, which adds them and answers all ranks; who has not sent is who is silent, and the answer
// says so to everybody. A collective could say neither, nor be given up. See docs/decisions/exchange-star.md.
#include "mpi_exchange.h"

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>
#include <thread>

#include "error_line.h"
#include "words.h"

namespace mezzo {
namespace {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::uint64_t>;
using namespace std::chrono_literals;

// How long the answer of a rank 0 that is alive may take on its way through a busy machine.
constexpr auto kGrace = 1s;
// When rank 0 has waited this long it tells the others that it is there, and until when it will wait.
constexpr auto kAnnounceAfter = 100ms;
// A failing rank gives rank 0 this long to take over its message, one after the other when several fail, and
// whoever prints this long to end the job. With the second or two in which mpirun brings down the ranks that
// is less than 5 s.
constexpr auto kTakeOver = 500ms;
constexpr auto kStagger = 50ms;
constexpr auto kStaggerMost = 1s;
constexpr auto kEnd = 2s;
// MPI looks at the network only while it is called: what has long been sent needs a moment to be found.
constexpr auto kSettle = 20ms;

// Messages to rank 0: `words` is {sequence, words...}, `failure` {exit code, bytes, text...}. Messages from
// rank 0: `waiting` {sequence, milliseconds left}, `answer` {sequence, number of silent ranks, silent
// ranks..., words...}, `taken` {}: rank 0 prints the receiver's failure. From anyone to all: `reported` {}:
// the sender has printed the job's message.
enum class Tag : int { words = 1, failure, reported, waiting, answer, taken };

struct Message {
  int peer = 0;
  Tag tag = Tag::words;
  Words words;
  MPI_Request request = MPI_REQUEST_NULL;
};

void check(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(status, text.data(), &length) != MPI_SUCCESS) length = 0;
  throw CommError("{} failed with error {}: {}", call, status,
                  std::string(text.data(), static_cast<std::size_t>(length)));
}

bool done(MPI_Request& request) {
  int flag = 0;
  check(MPI_Test(&request, &flag, MPI_STATUS_IGNORE), "MPI_Test");
  return flag != 0;
}

/// A timeout as a moment; one that the clock cannot hold is far enough away.
Clock::time_point after(Seconds timeout) {
  constexpr Seconds most = std::chrono::hours(24 * 365);
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::clamp(timeout, Seconds(0), most));
}

/// Waiting that leaves the processor to ranks and threads that have work: spin while an answer costs
/// microseconds, then yield, then sleep a fiftieth of the time waited so far, so that no wait gets 2% longer.
class Pause {
 public:
  void operator()() {
    const auto waited = Clock::now() - begin_;
    if (waited < 20us) return;
    if (waited < 500us) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(std::min<Clock::duration>(waited / 50, 1ms));
    }
  }

 private:
  Clock::time_point begin_ = Clock::now();
};

class MpiExchange final : public Exchange {
 public:
  /// `comm` is this exchange's own; `mpirun`: Open MPI's mpirun started the ranks.
  MpiExchange(MPI_Comm comm, bool mpirun, int rank, std::vector<std::string> hosts)
      : Exchange(rank, std::move(hosts)), comm_(comm), mpirun_(mpirun) {}

  ~MpiExchange() override {
    // With a silent rank MPI_Finalize would wait for ever, and a destructor has nobody to report an error to.
    if (broken_) end_job(ExitCode::error);
    MPI_Comm_free(&comm_);
    MPI_Finalize();
  }

  ExchangeResult sum(std::span<std::uint64_t> words, Seconds timeout) override {
    if (broken_) throw CommError("exchange {} failed: an earlier one was incomplete", sequence_ + 1);
    ++sequence_;
    broken_ = true;  // until it is known to be complete, also when an exception ends it
    ExchangeResult result = rank() == 0 ? collect(words, after(timeout)) : contribute(words, after(timeout));
    broken_ = !result.complete();
    return result;
  }

  [[noreturn]] void abort(ExitCode code, const std::string& message) override {
    signal(SIGTERM, SIG_DFL);  // the launcher's way to end ranks, which StopSignal would only take note of
    if (!said_by_another(code, message)) write_error_line(message);
    end_job(code);
  }

 private:
  ExchangeResult collect(std::span<std::uint64_t> words, Clock::time_point deadline);
  ExchangeResult contribute(std::span<std::uint64_t> words, Clock::time_point deadline);
  [[noreturn]] void take_over(const Message& failure);
  bool said_by_another(ExitCode code, const std::string& message);

  [[noreturn]] void end_job(ExitCode code);
  void send(int peer, Tag tag, Words words);
  std::optional<Message> receive();
  void flush(Clock::time_point deadline);

  MPI_Comm comm_;
  bool mpirun_;
  std::uint64_t sequence_ = 0;
  bool broken_ = false;
  bool reported_ = false;          // another rank has printed the job's message
  std::vector<Message> outgoing_;  // buffers must live until MPI is done with them
  std::vector<Message> incoming_;
};

/// Rank 0's part of a sum.
ExchangeResult MpiExchange::collect(std::span<std::uint64_t> words, Clock::time_point deadline) {
  std::vector<bool> arrived(static_cast<std::size_t>(size()), false);
  arrived[0] = true;
  int missing = size() - 1;
  const auto announcement = Clock::now() + kAnnounceAfter;
  bool announced = false;
  Pause pause;
  while (missing > 0) {
    const std::optional<Message> message = receive();
    if (!message) {
      const auto now = Clock::now();
      if (now >= deadline) break;
      if (!announced && now >= announcement) {
        announced = true;
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now).count();
        for (int r = 1; r < size(); ++r) send(r, Tag::waiting, {sequence_, static_cast<std::uint64_t>(left)});
      }
      pause();
      continue;
    }
    if (message->tag == Tag::failure) take_over(*message);
    if (message->tag != Tag::words) continue;
    const std::span<const std::uint64_t> theirs = std::span(message->words).subspan(1);
    if (message->words[0] != sequence_ || theirs.size() != words.size()) {
      throw CommError(
          "rank {} on {} brought {} words to exchange {}, but rank 0 on {} brought {} words to exchange {}",
          message->peer, host(message->peer), theirs.size(), message->words[0], host(), words.size(),
          sequence_);
    }
    for (std::size_t i = 0; i < words.size(); ++i) words[i] += theirs[i];
    arrived[static_cast<std::size_t>(message->peer)] = true;
    --missing;
  }

  ExchangeResult result;
  Words answer{sequence_, static_cast<std::uint64_t>(missing)};
  for (int r = 1; r < size(); ++r) {
    if (arrived[static_cast<std::size_t>(r)]) continue;
    result.silent.push_back(r);
    answer.push_back(static_cast<std::uint64_t>(r));
  }
  answer.insert(answer.end(), words.begin(), words.end());
  for (int r = 1; r < size(); ++r) send(r, Tag::answer, answer);
  // Nothing moves a long message along once this rank is back at its computation.
  if (result.complete()) flush(std::max(deadline, Clock::now() + kGrace));
  return result;
}

/// The part of every other rank.
ExchangeResult MpiExchange::contribute(std::span<std::uint64_t> words, Clock::time_point deadline) {
  Words mine;
  mine.reserve(words.size() + 1);
  mine.push_back(sequence_);
  mine.insert(mine.end(), words.begin(), words.end());
  send(0, Tag::words, std::move(mine));

  auto give_up = deadline + kGrace;
  Pause pause;
  for (;;) {
    const std::optional<Message> message = receive();
    if (!message) {
      if (Clock::now() >= give_up) return {.silent = {0}};
      pause();
      continue;
    }
    if (message->words.empty() || message->words[0] != sequence_) continue;  // of a sum that was given up
    if (message->tag == Tag::waiting) {
      give_up = Clock::now() + std::chrono::milliseconds(message->words[1]) + kGrace;
    } else if (message->tag == Tag::answer) {
      const auto silent = std::span(message->words).subspan(2, message->words[1]);
      const auto sums = std::span(message->words).subspan(2 + silent.size());
      std::copy(sums.begin(), sums.end(), words.begin());
      return {.silent = {silent.begin(), silent.end()}};
    }
  }
}

/// Rank 0 makes another rank's failure its own.
void MpiExchange::take_over(const Message& failure) {
  send(failure.peer, Tag::taken, {});
  flush(Clock::now() + 100ms);
  const auto text = std::span(failure.words).subspan(2);
  throw RankFailed(static_cast<ExitCode>(failure.words[0]), get_text(text, failure.words[1]));
}

/// Offers this rank's failure to rank 0, which prints it with an exit of its own, and tells all ranks when it
/// is this rank that prints. True when another has printed: that one ends the job, so this rank is not
/// expected to come back from here. Two lines can come out of a job only when two ranks begin to print within
/// the time a message takes, such as rank 0 after being busy for exactly kTakeOver.
bool MpiExchange::said_by_another(ExitCode code, const std::string& message) {
  try {
    auto give_up = Clock::now() + kSettle;
    if (rank() != 0) {
      Words failure(2 + words_of(message.size()), 0);
      failure[0] = static_cast<std::uint64_t>(code);
      failure[1] = message.size();
      put_text(message, std::span(failure).subspan(2));
      send(0, Tag::failure, std::move(failure));
      give_up = Clock::now() + kTakeOver + std::min<Clock::duration>(kStagger * (rank() - 1), kStaggerMost);
    }
    Pause pause;
    while (!reported_ && Clock::now() < give_up) {
      const std::optional<Message> received = receive();
      if (!received) {
        pause();
      } else if (received->tag == Tag::taken) {
        give_up = Clock::now() + kEnd;
      }
    }
    if (reported_) {
      std::this_thread::sleep_for(kEnd);
      return true;
    }
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) send(r, Tag::reported, {});
    }
    flush(Clock::now() + kSettle);
  } catch (const std::exception&) {
    // MPI or the memory is in trouble: what matters is the message at hand.
  }
  return false;
}

/// Takes all ranks down. Open MPI's mpirun does that when a rank leaves with a status other than 0; MPI_Abort
/// would have it print a message of its own, and in 4.1 one time in three that message arrives while mpirun
/// is already coming down, and mpirun reports internal errors or even crashes. Other launchers need
/// MPI_Abort.
void MpiExchange::end_job(ExitCode code) {
  std::fflush(stdout);
  if (!mpirun_) MPI_Abort(comm_, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

void MpiExchange::send(int peer, Tag tag, Words words) {
  if (words.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw CommError("an exchange of {} words is too long for MPI", words.size());
  }
  // Into the list first: were it to throw later, MPI would be left with a buffer that is gone.
  Message& message = outgoing_.emplace_back(Message{peer, tag, std::move(words)});
  check(MPI_Isend(message.words.data(), static_cast<int>(message.words.size()), MPI_UINT64_T, peer,
                  static_cast<int>(tag), comm_, &message.request),
        "MPI_Isend");
}

/// A message that is here in full, if there is one. Never waits.
std::optional<Message> MpiExchange::receive() {
  std::erase_if(outgoing_, [](Message& message) { return done(message.request); });

  int found = 0;
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status;
  check(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, &handle, &status), "MPI_Improbe");
  if (found != 0) {
    int count = 0;
    check(MPI_Get_count(&status, MPI_UINT64_T, &count), "MPI_Get_count");
    Message& message = incoming_.emplace_back(
        Message{status.MPI_SOURCE, static_cast<Tag>(status.MPI_TAG), Words(static_cast<std::size_t>(count))});
    check(MPI_Imrecv(message.words.data(), count, MPI_UINT64_T, &handle, &message.request), "MPI_Imrecv");
  }
  for (auto message = incoming_.begin(); message != incoming_.end(); ++message) {
    if (!done(message->request)) continue;
    std::optional<Message> complete(std::move(*message));
    incoming_.erase(message);
    reported_ = reported_ || complete->tag == Tag::reported;
    return complete;
  }
  return std::nullopt;
}

/// Waits until MPI has taken what was sent, at most until the deadline.
void MpiExchange::flush(Clock::time_point deadline) {
  Pause pause;
  for (;;) {
    std::erase_if(outgoing_, [](Message& message) { return done(message.request); });
    if (outgoing_.empty() || Clock::now() >= deadline) return;
    pause();
  }
}

std::vector<std::string> gather_hosts(MPI_Comm comm, int size) {
  using Name = std::array<char, MPI_MAX_PROCESSOR_NAME + 1>;
  Name mine{};
  int length = 0;
  check(MPI_Get_processor_name(mine.data(), &length), "MPI_Get_processor_name");
  std::vector<Name> all(static_cast<std::size_t>(size));
  const int bytes = static_cast<int>(mine.size());
  check(MPI_Allgather(mine.data(), bytes, MPI_CHAR, all.data(), bytes, MPI_CHAR, comm), "MPI_Allgather");
  std::vector<std::string> hosts;
  for (const Name& name : all) hosts.emplace_back(name.data());
  return hosts;
}

}  // namespace

std::unique_ptr<Exchange> make_mpi_exchange(int& argc, char**& argv, const Launch& launch) {
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (provided < MPI_THREAD_FUNNELED)
    throw CommError("the MPI library does not support threads (MPI_THREAD_FUNNELED)");
  int size = 0;
  int rank = 0;
  check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  if (launch.size > 0 && launch.size != size) {
    throw UsageError(
        "the launcher started {} ranks ({}), but the MPI library sees {}: they do not belong together; start "
        "the ranks "
        "with the mpirun of the MPI that Mezzo was built with, or with srun --mpi=pmix",
        launch.size, launch.variable, size);
  }
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");  // with its error handler
  const bool mpirun = launch.variable == "OMPI_COMM_WORLD_SIZE";
  return std::make_unique<MpiExchange>(comm, mpirun, rank, gather_hosts(comm, size));
}

}  // namespace mezzo
