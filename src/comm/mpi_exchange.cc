// The exchange over MPI: a star around rank 0, made of point-to-point messages alone. Every rank sends its
// words to rank 0, which adds them and answers all ranks. A thread on every rank sends heartbeats, to rank
// 0 and from there to all: rank 0 says who is given up, the others give up rank 0. A collective could say
// neither, nor be given up. See docs/decisions/exchange-star.md.
#include "mpi_exchange.h"

#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "deadline.h"
#include "error_line.h"
#include "failure_detector.h"
#include "mpi_mail.h"
#include "words.h"

namespace mezzo {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// What rank 0's answer may take on its way through a busy machine, beyond the time in which rank 0 gives up.
constexpr auto kGrace = 1s;
// Heartbeats a silence: some may be late.
constexpr int kSigns = 10;
constexpr Seconds kFastest = 20ms;
constexpr Seconds kSlowest = 1s;
// A failing rank gives rank 0 this long to take over its message, one after the other when several fail, and
// whoever prints this long to end the job. With the second or two in which mpirun brings down the ranks that
// is less than 5 s.
constexpr auto kTakeOver = 500ms;
constexpr auto kStagger = 50ms;
constexpr auto kStaggerMost = 1s;
constexpr auto kEnd = 2s;
constexpr auto kPrint = 200ms;
// MPI looks at the network only while it is called: what has long been sent needs a moment to be found.
constexpr auto kSettle = 20ms;
// MPI's own start and end wait for all ranks and cannot be given up.
constexpr Seconds kStart = 25s;
constexpr Seconds kLeave = 20s;

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

constexpr std::size_t kAbsenceWords = 5;

void put(const Absence& absence, Words& words) {
  const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(absence.waited).count();
  words.insert(words.end(),
               {static_cast<std::uint64_t>(absence.rank), absence.alive ? 1u : 0u,
                static_cast<std::uint64_t>(waited), static_cast<std::uint64_t>(absence.phase), absence.step});
}

Absence get_absence(std::span<const std::uint64_t> words) {
  return {.rank = static_cast<int>(words[0]),
          .alive = words[1] != 0,
          .waited = std::chrono::microseconds(words[2]),
          .phase = static_cast<Phase>(words[3]),
          .step = words[4]};
}

class MpiExchange final : public Exchange {
 public:
  /// `comm` is this exchange's own; `mpirun`: Open MPI's mpirun started the ranks.
  MpiExchange(MPI_Comm comm, bool mpirun, int rank, std::vector<std::string> hosts)
      : Exchange(rank, std::move(hosts)),
        mpirun_(mpirun),
        mail_(comm),
        detector_(size(), Clock::now()),
        heartbeats_([this](const std::stop_token& stop) { send_heartbeats(stop); }) {}

  ~MpiExchange() override;

  ExchangeResult sum(std::span<std::uint64_t> words, Patience patience, Transport* transport) override;
  [[noreturn]] void abort(ExitCode code, const std::string& message) override;
  std::string library() const override;

 private:
  ExchangeResult collect(std::span<std::uint64_t> words, Patience patience);
  ExchangeResult contribute(std::span<std::uint64_t> words, Patience patience);
  ExchangeResult carry(Transport& transport, std::span<std::uint64_t> words, Patience patience);

  std::vector<Absence> absences(const std::vector<bool>& came, Clock::time_point since, Patience patience);
  std::optional<ExchangeResult> read_answer(const Message& message, std::span<std::uint64_t> words);
  void answer(const std::vector<Absence>& absent, std::span<const std::uint64_t> words);
  [[noreturn]] void take_over(const Message& failure);
  bool said_by_another(ExitCode code, const std::string& message);
  [[noreturn]] void end_job(ExitCode code);

  // The only ones that touch what both threads do.
  void send_heartbeats(const std::stop_token& stop);
  void begin_sum(Patience patience);
  void send(int peer, Tag tag, Words words);
  std::optional<Message> next(std::optional<Tag> but = std::nullopt);
  void flush(Clock::time_point deadline);
  void pump();  // with the lock held

  bool mpirun_;
  std::uint64_t sequence_ = 0;
  bool broken_ = false;

  std::mutex mutex_;  // of everything below
  std::condition_variable_any wake_;
  Mail mail_;
  FailureDetector detector_;
  std::deque<Message> inbox_;  // what has come, but for heartbeats
  Seconds pace_ = kSlowest;    // between heartbeats
  std::uint64_t arrived_ = 0;  // sequence_, for the heartbeats
  Clock::time_point pumped_ = Clock::now();
  bool reported_ = false;  // another rank has printed the job's message
  std::exception_ptr sign_failure_;
  std::jthread heartbeats_;
};

MpiExchange::~MpiExchange() {
  // With a silent rank MPI_Finalize would wait for ever, and a destructor has nobody to report an error to.
  if (broken_) end_job(ExitCode::error);
  try {
    // All ranks come here with their heartbeats going on, and then take what heartbeats are still under way.
    const Patience patience{kLeave, kLeave};
    ExchangeResult result = sum({}, patience, nullptr);
    heartbeats_.request_stop();
    heartbeats_.join();
    if (result.complete()) result = sum({}, patience, nullptr);
    if (!result.complete()) {
      abort(ExitCode::stopped,
            fmt::format("{} did not come to the end of the job", name_of_rank(result.absent.front().rank)));
    }
    const Deadline deadline(kLeave, [this] {
      write_error_line(
          fmt::format("{}: MPI_Finalize has not ended within {:g} s", name_of_rank(rank()), kLeave.count()));
      std::_Exit(static_cast<int>(ExitCode::stopped));
    });
    mail_.close();
    check_mpi(MPI_Finalize(), "MPI_Finalize");
  } catch (const std::exception& error) {
    abort(ExitCode::error, fmt::format("{}: {}", name_of_rank(rank()), error.what()));
  }
}

ExchangeResult MpiExchange::sum(std::span<std::uint64_t> words, Patience patience, Transport* transport) {
  if (broken_) throw CommError("exchange {} failed: an earlier one was incomplete", sequence_ + 1);
  broken_ = true;  // until it is known to be complete, also when an exception ends it
  begin_sum(patience);
  ExchangeResult result = transport != nullptr ? carry(*transport, words, patience)
                          : rank() == 0        ? collect(words, patience)
                                               : contribute(words, patience);
  broken_ = !result.complete();
  return result;
}

void MpiExchange::abort(ExitCode code, const std::string& message) {
  signal(SIGTERM, SIG_DFL);  // the launcher's way to end ranks, which StopSignal would only take note of
  if (!said_by_another(code, message)) {
    write_error_line(message);
    // mpirun may leave in a hurry once it has seen the status, with the line still on its way through it.
    std::this_thread::sleep_for(kPrint);
  }
  end_job(code);
}

std::string MpiExchange::library() const {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  check_mpi(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string version(text.data(), static_cast<std::size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));  // its name and number come first
}

// ---- one sum ----------------------------------------------------------------------------------------------

/// Rank 0's part of a sum.
ExchangeResult MpiExchange::collect(std::span<std::uint64_t> words, Patience patience) {
  const auto begin = Clock::now();
  std::vector<bool> came(static_cast<std::size_t>(size()), false);
  came[0] = true;
  int missing = size() - 1;
  Pause pause;
  while (missing > 0) {
    const std::optional<Message> message = next();
    if (!message) {
      if (std::vector<Absence> absent = absences(came, begin, patience); !absent.empty()) {
        answer(absent, {});
        return {std::move(absent)};
      }
      pause();
      continue;
    }
    if (message->tag == Tag::failure) take_over(*message);
    if (message->tag != Tag::words) continue;
    const std::span<const std::uint64_t> theirs = std::span(message->words).subspan(1);
    if (message->words[0] != sequence_ || theirs.size() != words.size()) {
      throw CommError("{} brought {} words to exchange {}, but {} brought {} words to exchange {}",
                      name_of_rank(message->peer), theirs.size(), message->words[0], name_of_rank(0),
                      words.size(), sequence_);
    }
    for (std::size_t i = 0; i < words.size(); ++i) words[i] += theirs[i];
    came[static_cast<std::size_t>(message->peer)] = true;
    --missing;
  }
  answer({}, words);
  // Nothing moves a long message along quickly once this rank is back at its computation.
  flush(Clock::now() + kGrace);
  return {};
}

/// The part of every other rank.
ExchangeResult MpiExchange::contribute(std::span<std::uint64_t> words, Patience patience) {
  Words mine;
  mine.reserve(words.size() + 1);
  mine.push_back(sequence_);
  mine.insert(mine.end(), words.begin(), words.end());
  send(0, Tag::words, std::move(mine));

  const auto begin = Clock::now();
  Pause pause;
  for (;;) {
    if (const std::optional<Message> message = next()) {
      if (std::optional<ExchangeResult> result = read_answer(*message, words)) return std::move(*result);
    } else {
      if (std::vector<Absence> absent = absences({}, begin, patience); !absent.empty()) {
        return {std::move(absent)};
      }
      pause();
    }
  }
}

/// The part of any rank where a transport moves the words.
ExchangeResult MpiExchange::carry(Transport& transport, std::span<std::uint64_t> words, Patience patience) {
  const auto begin = Clock::now();
  std::vector<bool> came(static_cast<std::size_t>(size()), true);
  std::exception_ptr failure;  // the transport's: who has caused it is known a little later
  Clock::time_point failed;
  Pause pause;
  try {
    transport.begin(words);
    for (;;) {
      const auto now = Clock::now();
      try {
        if (!failure && transport.done(words)) return {};
      } catch (const CommError&) {
        failure = std::current_exception();
        failed = now;
        transport.abort();
      }
      // Words belong to the next sum, of a rank whose transport was done earlier.
      if (const std::optional<Message> message = next(Tag::words)) {
        if (message->tag == Tag::failure) take_over(*message);
        if (std::optional<ExchangeResult> result = read_answer(*message, {})) {
          transport.abort();
          return std::move(*result);
        }
        continue;
      }
      if (rank() == 0) {
        const std::lock_guard lock(mutex_);
        for (int r = 1; r < size(); ++r) {
          came[static_cast<std::size_t>(r)] = detector_.heartbeat(r).arrived >= sequence_;
        }
      }
      if (std::vector<Absence> absent = absences(came, begin, patience); !absent.empty()) {
        transport.abort();
        if (rank() == 0) answer(absent, {});
        return {std::move(absent)};
      }
      if (failure && now - failed > patience.silence + 2 * kGrace) std::rethrow_exception(failure);
      if (now - begin > 2 * (patience.work + patience.silence) + kGrace) {
        throw CommError("{}: {} did not finish an all-reduce to which all ranks have come",
                        name_of_rank(rank()), transport.library());
      }
      pause();
    }
  } catch (...) {
    transport.abort();
    throw;
  }
}

/// Who is to be given up by now: on rank 0 among all others (`came`: who has done its part), elsewhere rank
/// 0.
std::vector<Absence> MpiExchange::absences(const std::vector<bool>& came, Clock::time_point since,
                                           Patience patience) {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  std::vector<Absence> absent;
  if (rank() != 0) {
    // A rank 0 that has come waits for the others in its own way, and says whom it gave up.
    const bool waits = detector_.heartbeat(0).arrived >= sequence_;
    const Patience longer{patience.silence + kGrace,
                          waits ? 2 * (patience.work + patience.silence) : patience.work + kGrace};
    if (auto absence = detector_.absence(0, false, since, longer, Seconds(0), now))
      absent.push_back(*absence);
    return absent;
  }
  const auto look = [&](Seconds slack) {
    absent.clear();
    for (int r = 1; r < size(); ++r) {
      if (auto absence =
              detector_.absence(r, came[static_cast<std::size_t>(r)], since, patience, slack, now)) {
        absent.push_back(*absence);
      }
    }
  };
  look(Seconds(0));
  // Those who fell silent together are named together, whenever their last heartbeats came.
  if (!absent.empty()) look(2.0 * pace_);
  return absent;
}

/// What rank 0 says of the sum under way; nothing where `message` is another.
std::optional<ExchangeResult> MpiExchange::read_answer(const Message& message,
                                                       std::span<std::uint64_t> words) {
  if (message.tag != Tag::answer || message.words[0] != sequence_) return std::nullopt;
  ExchangeResult result;
  auto rest = std::span(message.words).subspan(2);
  for (std::uint64_t i = 0; i < message.words[1]; ++i) {
    result.absent.push_back(get_absence(rest));
    rest = rest.subspan(kAbsenceWords);
  }
  if (result.complete()) std::copy(rest.begin(), rest.end(), words.begin());
  return result;
}

void MpiExchange::answer(const std::vector<Absence>& absent, std::span<const std::uint64_t> words) {
  Words text{sequence_, absent.size()};
  for (const Absence& absence : absent) put(absence, text);
  text.insert(text.end(), words.begin(), words.end());
  for (int r = 1; r < size(); ++r) send(r, Tag::answer, text);
  if (!absent.empty()) flush(Clock::now() + kSettle);
}

// ---- failures ---------------------------------------------------------------------------------------------

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
  const auto reported = [this] {
    const std::lock_guard lock(mutex_);
    return reported_;
  };
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
    while (!reported() && Clock::now() < give_up) {
      const std::optional<Message> received = next();
      if (!received) {
        pause();
      } else if (received->tag == Tag::taken) {
        give_up = Clock::now() + kEnd;
      }
    }
    if (reported()) {
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
  if (!mpirun_) {
    const Deadline deadline(kEnd, [code] { std::_Exit(static_cast<int>(code)); });
    MPI_Abort(mail_.comm(), static_cast<int>(code));
  }
  std::_Exit(static_cast<int>(code));
}

// ---- messages ---------------------------------------------------------------------------------------------

/// The thread of heartbeats. It also keeps messages moving while this rank computes.
void MpiExchange::send_heartbeats(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    try {
      pump();
      const Words heartbeat{arrived_, static_cast<std::uint64_t>(phase()), step()};
      const int last = rank() == 0 ? size() - 1 : 0;
      for (int peer = rank() == 0 ? 1 : 0; peer <= last; ++peer) {
        // One that takes nothing any more is not sent more and more.
        if (!mail_.sending(peer, Tag::heartbeat)) mail_.send(peer, Tag::heartbeat, heartbeat);
      }
    } catch (const std::exception&) {
      sign_failure_ = std::current_exception();
      return;
    }
    const Seconds pace = pace_;
    wake_.wait_for(lock, stop, pace, [&] { return pace_ < pace; });
  }
}

void MpiExchange::begin_sum(Patience patience) {
  const std::lock_guard lock(mutex_);
  arrived_ = ++sequence_;
  pace_ = std::clamp(patience.silence / kSigns, kFastest, kSlowest);
  wake_.notify_all();
}

void MpiExchange::send(int peer, Tag tag, Words words) {
  const std::lock_guard lock(mutex_);
  mail_.send(peer, tag, std::move(words));
}

/// A message that is here, if there is one; never a heartbeat. `but`: left for later. Never waits.
std::optional<Message> MpiExchange::next(std::optional<Tag> but) {
  const std::lock_guard lock(mutex_);
  if (sign_failure_) std::rethrow_exception(sign_failure_);
  const auto find = [&] {
    return std::ranges::find_if(inbox_, [&](const Message& message) { return message.tag != but; });
  };
  auto found = find();
  if (found == inbox_.end()) {
    pump();
    found = find();
  }
  if (found == inbox_.end()) return std::nullopt;
  std::optional<Message> message(std::move(*found));
  inbox_.erase(found);
  return message;
}

void MpiExchange::pump() {
  const auto now = Clock::now();
  const bool slept = now - pumped_ > 3 * kSlowest;  // nobody can be blamed for what this process did not hear
  pumped_ = now;
  while (std::optional<Message> message = mail_.receive()) {
    if (message->tag == Tag::heartbeat) {
      detector_.heard(message->peer,
                      {message->words[0], static_cast<Phase>(message->words[1]), message->words[2]}, now);
    } else {
      detector_.heard(message->peer, now);
      reported_ = reported_ || message->tag == Tag::reported;
      inbox_.push_back(std::move(*message));
    }
  }
  if (slept) detector_.awoke(now);
}

/// Waits until MPI has taken what was sent, at most until the deadline.
void MpiExchange::flush(Clock::time_point deadline) {
  Pause pause;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (mail_.sent()) return;
    }
    if (Clock::now() >= deadline) return;
    pause();
  }
}

// ---- start ------------------------------------------------------------------------------------------------

std::vector<std::string> gather_hosts(MPI_Comm comm, int size) {
  using Name = std::array<char, MPI_MAX_PROCESSOR_NAME + 1>;
  Name mine{};
  int length = 0;
  check_mpi(MPI_Get_processor_name(mine.data(), &length), "MPI_Get_processor_name");
  std::vector<Name> all(static_cast<std::size_t>(size));
  const int bytes = static_cast<int>(mine.size());
  check_mpi(MPI_Allgather(mine.data(), bytes, MPI_CHAR, all.data(), bytes, MPI_CHAR, comm), "MPI_Allgather");
  std::vector<std::string> hosts;
  for (const Name& name : all) hosts.emplace_back(name.data());
  return hosts;
}

/// Says that the job does not come up, and which ranks of this host are to blame as far as that can be seen.
[[noreturn]] void give_up_start(const Launch& launch) {
  // Rank 0 speaks, or rank 1 where it cannot, still within half a minute; the others only if neither does:
  // the launcher ends them when one has left, which takes it some seconds on a busy machine.
  if (launch.rank > 0) std::this_thread::sleep_for(3500ms + std::min(launch.rank - 1, 20) * 6s);
  const std::vector<int> stopped = stopped_local_ranks(launch);
  std::string who = "a rank on another host, or one that was never started";
  for (std::size_t i = 0; i < stopped.size(); ++i) {
    who = (i == 0 ? "" : who + ", ") +
          fmt::format("rank {} (stopped, on the host of rank {})", stopped[i], launch.rank);
  }
  write_error_line(
      fmt::format("the job has not come up within {:g} s: MPI_Init waits for {}", kStart.count(), who));
  std::this_thread::sleep_for(kPrint);
  std::_Exit(static_cast<int>(ExitCode::stopped));
}

}  // namespace

std::unique_ptr<Exchange> make_mpi_exchange(int& argc, char**& argv, const Launch& launch) {
  const Deadline deadline(kStart, [launch] { give_up_start(launch); });
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (provided < MPI_THREAD_SERIALIZED)
    throw CommError("the MPI library does not support threads (MPI_THREAD_SERIALIZED)");
  int size = 0;
  int rank = 0;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  if (launch.size > 0 && launch.size != size) {
    throw UsageError(
        "the launcher started {} ranks ({}), but the MPI library sees {}: they do not belong together; start "
        "the ranks "
        "with the mpirun of the MPI that Mezzo was built with, or with srun --mpi=pmix",
        launch.size, launch.variable, size);
  }
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");  // with its error handler
  const bool mpirun = launch.variable == "OMPI_COMM_WORLD_SIZE";
  return std::make_unique<MpiExchange>(comm, mpirun, rank, gather_hosts(comm, size));
}

}  // namespace mezzo
