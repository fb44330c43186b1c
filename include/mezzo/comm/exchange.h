#pragma once
// What ranks say to each other. A rank brings an array of 64-bit words in which the others' words are zero
// and takes home the sum: with one writer a word the integer sum returns every writer's bits, doubles
// included (NaN payloads and -0 survive), whatever the order and the number of ranks.
//
// Silence is a value: no call waits beyond its timeout, and nothing above this interface calls a collective.
// Words live in host memory; an exchange that moves them over a device does so behind this interface.
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mezzo/core/error.h"

namespace mezzo {

using Seconds = std::chrono::duration<double>;

/// Which ranks had not arrived when the timeout passed, ascending; the same list on every rank that returns.
struct ExchangeResult {
  std::vector<int> silent;
  bool complete() const { return silent.empty(); }
};

/// Another rank failed and rank 0 was told why. The message names the rank and its host.
class RankFailed : public CommError {
 public:
  RankFailed(ExitCode code, const std::string& message) : CommError("{}", message), code_(code) {}
  ExitCode exit_code() const override { return code_; }

 private:
  ExitCode code_;
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
  const std::string& host(int rank) const { return hosts_.at(static_cast<std::size_t>(rank)); }
  const std::string& host() const { return host(rank_); }
  int local_rank() const;  ///< place among the ranks of this host: the number of its device
  int local_size() const;  ///< ranks on this host

  /// Replaces `words` by the sum over all ranks, modulo 2^64. When ranks stay silent for `timeout`, `words`
  /// holds the sum over the others (over this rank alone when rank 0 is the silent one), and the exchange
  /// serves no further sum. Throws RankFailed (on rank 0) when a rank has called abort(), and CommError when
  /// ranks bring different numbers of words, the library fails, or an earlier sum was incomplete.
  virtual ExchangeResult sum(std::span<std::uint64_t> words, Seconds timeout) = 0;

  /// Ends the whole job with `code`, from one rank alone, with `message` behind "mezzo: error: " printed once
  /// for the job. Runs no destructors.
  [[noreturn]] virtual void abort(ExitCode code, const std::string& message) = 0;

 protected:
  /// `hosts`: the host of every rank.
  Exchange(int rank, std::vector<std::string> hosts) : rank_(rank), hosts_(std::move(hosts)) {}

 private:
  int rank_;
  std::vector<std::string> hosts_;
};

/// A job of one rank.
std::unique_ptr<Exchange> make_self_exchange();

/// The exchange of the job that this process was started in: MPI under a launcher of several ranks, which its
/// environment variables tell (mpirun, mpiexec, srun), else a job of one rank. Destroying it waits for the
/// other ranks to do the same. Throws UsageError when the launcher started several ranks that this build, or
/// its MPI library, cannot join.
std::unique_ptr<Exchange> make_exchange(int& argc, char**& argv);

}  // namespace mezzo
