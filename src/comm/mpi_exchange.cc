// The exchange over MPI: a star around rank 0, made of point-to-point messages alone. Every rank sends its
// words to rank 0, which adds them and answers all ranks. Rank 0 says who is given up, the others give up
// rank 0, both by heartbeats (mpi_messenger.h). A collective could say neither, nor be given up. See
// docs/decisions/exchange-star.md.
#include "mpi_exchange.h"

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <thread>

#include "deadline.h"
#include "error_line.h"
#include "mpi_job.h"
#include "mpi_messenger.h"
#include "words.h"

namespace mezzo {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// What rank 0's answer may take on its way through a busy machine, beyond the time in which rank 0 gives up.
constexpr auto kGrace = 1s;
// A failing rank gives rank 0 this long to take over its message, one after the other when several fail, and
// whoever prints this long to end the job. With the second or two in which mpirun brings down the ranks that
// is less than 5 s.
constexpr auto kTakeOver = 500ms;
constexpr auto kStagger = 50ms;
constexpr auto kStaggerMost = 1s;
constexpr auto kEnd = 2s;
// MPI looks at the network only while it is called: what has long been sent needs a moment to be found.
constexpr auto kSettle = 20ms;
// MPI's own end waits for all ranks and cannot be given up.
constexpr Seconds kLeave = 20s;

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
  MpiExchange(int& argc, char**& argv, const Launch& launch, Seconds start_timeout)
      : MpiExchange(std::make_unique<MpiJob>(argc, argv, launch, start_timeout)) {}
  ~MpiExchange() override;

  ExchangeResult sum(std::span<std::uint64_t> words, Patience patience, Transport* transport) override;
  [[noreturn]] void abort(ExitCode code, const std::string& message) override;
  std::string library() const override { return job_->library(); }

 private:
  explicit MpiExchange(std::unique_ptr<MpiJob> job)
      : Exchange(job->rank(), job->hosts()),
        job_(std::move(job)),
        messenger_(job_->comm(), rank(), size(), [this] {
          return Messenger::Doing{phase(), step()};
        }) {}

  ExchangeResult collect(std::span<std::uint64_t> words, Patience patience);
  ExchangeResult contribute(std::span<std::uint64_t> words, Patience patience);
  ExchangeResult carry(Transport& transport, std::span<std::uint64_t> words, Patience patience);

  std::vector<Absence> absences(const std::vector<bool>& came, Clock::time_point since, Patience patience);
  std::optional<ExchangeResult> read_answer(const Message& message, std::span<std::uint64_t> words);
  void answer(const std::vector<Absence>& absent, std::span<const std::uint64_t> words);
  [[noreturn]] void take_over(const Message& failure);
  bool said_by_another(ExitCode code, const std::string& message);
  [[noreturn]] void end_job(ExitCode code);

  std::unique_ptr<MpiJob> job_;
  Messenger messenger_;
  std::uint64_t sequence_ = 0;  // of the sum under way
  bool broken_ = false;
};

MpiExchange::~MpiExchange() {
  // With a silent rank MPI_Finalize would wait for ever, and a destructor has nobody to report an error to.
  if (broken_) end_job(ExitCode::error);
  try {
    // All ranks come here with their heartbeats going on, and then take what heartbeats are still under way.
    const Patience patience{kLeave, kLeave};
    ExchangeResult result = sum({}, patience, nullptr);
    messenger_.stop();
    if (result.complete()) result = sum({}, patience, nullptr);
    if (!result.complete()) {
      abort(ExitCode::stopped,
            fmt::format("{} did not come to the end of the job", name_of_rank(result.absent.front().rank)));
    }
    job_->finalize(kLeave);
  } catch (const std::exception& error) {
    abort(ExitCode::error, fmt::format("{}: {}", name_of_rank(rank()), error.what()));
  }
}

ExchangeResult MpiExchange::sum(std::span<std::uint64_t> words, Patience patience, Transport* transport) {
  if (broken_) throw CommError("exchange {} failed: an earlier one was incomplete", sequence_ + 1);
  broken_ = true;  // until it is known to be complete, also when an exception ends it
  messenger_.begin_sum(++sequence_, patience.silence);
  ExchangeResult result = transport != nullptr ? carry(*transport, words, patience)
                          : rank() == 0        ? collect(words, patience)
                                               : contribute(words, patience);
  broken_ = !result.complete();
  return result;
}

void MpiExchange::abort(ExitCode code, const std::string& message) {
  signal(SIGTERM, SIG_DFL);  // the launcher's way to end ranks, which StopSignal would only take note of
  if (!said_by_another(code, message)) write_last_error_line(message);
  end_job(code);
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
    const std::optional<Message> message = messenger_.next();
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
  messenger_.flush(Clock::now() + kGrace);
  return {};
}

/// The part of every other rank.
ExchangeResult MpiExchange::contribute(std::span<std::uint64_t> words, Patience patience) {
  Words mine;
  mine.reserve(words.size() + 1);
  mine.push_back(sequence_);
  mine.insert(mine.end(), words.begin(), words.end());
  messenger_.send(0, Tag::words, std::move(mine));

  const auto begin = Clock::now();
  Pause pause;
  for (;;) {
    if (const std::optional<Message> message = messenger_.next()) {
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
      if (const std::optional<Message> message = messenger_.next(Tag::words)) {
        if (message->tag == Tag::failure) take_over(*message);
        if (std::optional<ExchangeResult> result = read_answer(*message, {})) {
          transport.abort();
          return std::move(*result);
        }
        continue;
      }
      if (rank() == 0) {
        messenger_.look([&](const FailureDetector& detector) {
          for (int r = 1; r < size(); ++r) {
            came[static_cast<std::size_t>(r)] = detector.heartbeat(r).arrived >= sequence_;
          }
        });
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
  const auto now = Clock::now();
  std::vector<Absence> absent;
  if (rank() != 0) {
    messenger_.look([&](const FailureDetector& detector) {
      // A rank 0 that has come waits for the others in its own way, and says whom it gave up.
      const bool waits = detector.heartbeat(0).arrived >= sequence_;
      const Patience longer{patience.silence + kGrace,
                            waits ? 2 * (patience.work + patience.silence) : patience.work + kGrace};
      if (auto absence = detector.absence(0, false, since, longer, Seconds(0), now))
        absent.push_back(*absence);
    });
    return absent;
  }
  const auto look = [&](Seconds slack) {
    absent.clear();
    messenger_.look([&](const FailureDetector& detector) {
      for (int r = 1; r < size(); ++r) {
        const bool here = came[static_cast<std::size_t>(r)];
        if (auto absence = detector.absence(r, here, since, patience, slack, now)) absent.push_back(*absence);
      }
    });
  };
  look(Seconds(0));
  // Those who fell silent together are named together, whenever their last heartbeats came.
  if (!absent.empty()) look(2.0 * messenger_.interval());
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
  for (int r = 1; r < size(); ++r) messenger_.send(r, Tag::answer, text);
  if (!absent.empty()) messenger_.flush(Clock::now() + kSettle);
}

// ---- failures ---------------------------------------------------------------------------------------------

/// Rank 0 makes another rank's failure its own.
void MpiExchange::take_over(const Message& failure) {
  messenger_.send(failure.peer, Tag::taken, {});
  messenger_.flush(Clock::now() + 100ms);
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
      messenger_.send(0, Tag::failure, std::move(failure));
      give_up = Clock::now() + kTakeOver + std::min<Clock::duration>(kStagger * (rank() - 1), kStaggerMost);
    }
    Pause pause;
    while (!messenger_.reported() && Clock::now() < give_up) {
      const std::optional<Message> received = messenger_.next();
      if (!received) {
        pause();
      } else if (received->tag == Tag::taken) {
        give_up = Clock::now() + kEnd;
      }
    }
    if (messenger_.reported()) {
      std::this_thread::sleep_for(kEnd);
      return true;
    }
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) messenger_.send(r, Tag::reported, {});
    }
    messenger_.flush(Clock::now() + kSettle);
  } catch (const std::exception&) {
    // MPI or the memory is in trouble: what matters is the message at hand.
  }
  return false;
}

/// Takes all ranks down.
void MpiExchange::end_job(ExitCode code) {
  std::fflush(stdout);
  if (!job_->launcher_ends_ranks()) {
    const Deadline deadline(kEnd, [code] { std::_Exit(static_cast<int>(code)); });
    messenger_.alone([&] { job_->abort(code); });  // the heartbeats' thread may be in MPI
  }
  std::_Exit(static_cast<int>(code));
}

}  // namespace

std::unique_ptr<Exchange> make_mpi_exchange(int& argc, char**& argv, const Launch& launch,
                                            Seconds start_timeout) {
  return std::make_unique<MpiExchange>(argc, argv, launch, start_timeout);
}

}  // namespace mezzo
