#pragma once
// Steps that all ranks of a job take together, and how a job fails: one message, one status, no rank left
// behind.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"

namespace mezzo {

/// One rank's error.
struct Failure {
  ExitCode code = ExitCode::error;
  std::string message;
};

/// Every rank has thrown this same error and leaves by itself; report_failure() prints it on rank 0.
class JobFailed : public Error {
 public:
  explicit JobFailed(const Failure& failure) : Error("{}", failure.message), code_(failure.code) {}
  ExitCode exit_code() const override { return code_; }

 private:
  ExitCode code_;
};

/// Ranks were given up. What is on disk is whole, so that the job can be started again.
class RankLost : public CommError {
 public:
  using CommError::CommError;
  ExitCode exit_code() const override { return ExitCode::stopped; }
};

/// The text of every rank, in rank order. Throws RankLost naming the ranks that do not come.
std::vector<std::string> agree(Exchange& exchange, const std::string& mine, Patience patience);

/// Returns when all ranks bring the same text, else throws JobFailed on all of them with `code`: `what` of
/// which rank differs from rank 0's, and the first lines that do; quoted, with their place, where they differ
/// in blanks alone.
void check_same(Exchange& exchange, const std::string& what, const std::string& mine, Patience patience,
                ExitCode code = ExitCode::usage);

/// Returns when no rank brings a failure, else throws JobFailed on all of them, with the lowest failing
/// rank's code and message. The message names rank and host unless it is rank 0's and every failing rank says
/// the same.
void check_together(Exchange& exchange, const std::optional<Failure>& mine, Patience patience);

/// Runs `step` on every rank, then check_together(): an error in a rank's `step` is thrown as JobFailed on
/// all ranks. For what may fail on one rank or on all alike, such as reading the config and opening files.
/// CommError passes through: a step that exchanges is its own checkpoint.
void together(Exchange& exchange, Patience patience, const std::function<void()>& step);

/// Throws RankLost naming the ranks that were given up, their hosts and what they were at, if any.
void require_complete(const Exchange& exchange, const ExchangeResult& result);

/// What main() does with an exception: has "mezzo: error: ..." printed once for the whole job and returns the
/// exit status, or, when the other ranks do not know of the error, ends them and this one. `exchange` may be
/// null: the error came before there was one, so it is every rank's, and the launcher's rank 0 prints it.
int report_failure(Exchange* exchange, const std::exception& error);

}  // namespace mezzo
