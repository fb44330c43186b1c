#pragma once
// What ranks say to each other. A rank brings an array of 64-bit words in which the others' words are zero
// and takes home the sum: with one writer a word the integer sum returns every writer's bits, doubles
// included (NaN payloads and -0 survive), whatever the order and the number of ranks.
//
// Silence is a value: no call waits for ever, and nothing above this interface calls a collective. Beside the
// sums the ranks send each other heartbeats, from which it is known who is missing and what it was doing.
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/comm/patience.h"
#include "mezzo/comm/transport.h"
#include "mezzo/core/error.h"

namespace mezzo {

/// What a rank is at. Frozen: it travels between processes.
enum class Phase : std::uint64_t { starting = 0, loading, forward, update, evaluation, saving };
std::string_view name_of(Phase phase);

/// A rank that was given up.
struct Absence {
  int rank = 0;
  bool alive = false;             ///< it gives heartbeats, but did not come
  Seconds waited{0};              ///< since its last heartbeat, or, when alive, since it was waited for
  Phase phase = Phase::starting;  ///< what it said last that it is at
  std::uint64_t step = 0;         ///< counted from 1; 0: before the first
};

/// Who was given up, by rank; the same list on every rank that returns.
struct ExchangeResult {
  std::vector<Absence> absent;
  bool complete() const { return absent.empty(); }
};

/// Another rank failed and rank 0 was told why. The message names the rank and its host.
class RankFailed : public CommError {
 public:
  RankFailed(ExitCode code, const std::string& message) : CommError("{}", message), code_(code) {}
  ExitCode exit_code() const override { return code_; }

 private:
  ExitCode code_;
};

/// Where a rank runs.
struct RankHost {
  std::string name;    ///< of the host
  int first_rank = 0;  ///< the lowest rank there, which tells hosts apart
};

/// The ranks of one job, as seen from one of them. All ranks call sum() in the same order with the same
/// number of words, from the thread that made the exchange.
class Exchange {
 public:
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(hosts_.size()); }
  /// The name of a rank's host; no two hosts of a job have the same.
  const std::string& host(int rank) const { return hosts_.at(static_cast<std::size_t>(rank)).name; }
  const std::string& host() const { return host(rank_); }
  bool share_host(int rank, int other) const;
  int local_rank() const;  ///< place among the ranks of this host: the number of its device
  int local_size() const;  ///< ranks on this host
  /// "rank 3 on host"
  std::string name_of_rank(int rank) const { return fmt::format("rank {} on {}", rank, host(rank)); }

  /// What this rank's heartbeats say from here on.
  void doing(Phase phase, std::uint64_t step) {
    phase_.store(phase, std::memory_order_relaxed);
    step_.store(step, std::memory_order_relaxed);
  }

  /// Replaces `words` by the sum over all ranks, modulo 2^64. A `transport` moves them, where there is one on
  /// every rank; else the exchange itself does. When ranks were given up, `words` holds nothing of use, and
  /// the exchange serves no further sum. Throws RankFailed (on rank 0) when a rank has called abort(), and
  /// CommError when ranks bring different numbers of words, a library fails, or an earlier sum was
  /// incomplete.
  virtual ExchangeResult sum(std::span<std::uint64_t> words, Patience patience,
                             Transport* transport = nullptr) = 0;

  /// Ends the whole job with `code`, from one rank alone, with `message` behind "mezzo: error: " printed once
  /// for the job. Runs no destructors.
  [[noreturn]] virtual void abort(ExitCode code, const std::string& message) = 0;

  virtual std::string library() const = 0;  ///< what carries the words, with its version; "" for one rank

 protected:
  /// `hosts`: the host of every rank.
  Exchange(int rank, std::vector<RankHost> hosts) : rank_(rank), hosts_(std::move(hosts)) {}

  Phase phase() const { return phase_.load(std::memory_order_relaxed); }
  std::uint64_t step() const { return step_.load(std::memory_order_relaxed); }

 private:
  int rank_;
  std::vector<RankHost> hosts_;
  std::atomic<Phase> phase_{Phase::starting};  // read by the thread that gives the heartbeats
  std::atomic<std::uint64_t> step_{0};
};

/// A job of one rank.
std::unique_ptr<Exchange> make_self_exchange();

/// The exchange of the job that this process was started in: MPI under a launcher of several ranks, which its
/// environment variables tell (mpirun, mpiexec, srun), else a job of one rank. Destroying it waits for the
/// other ranks to do the same. Throws UsageError when the launcher started several ranks that this build, or
/// its MPI library, cannot join. Ends the process with ExitCode::stopped when not all ranks have come up
/// within `start_timeout`, and names those that are seen to be missing.
std::unique_ptr<Exchange> make_exchange(int& argc, char**& argv, Seconds start_timeout);

}  // namespace mezzo
