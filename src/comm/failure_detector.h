#pragma once
// Who has been heard of when, and who is to be given up. Knows nothing of how heartbeats travel, and no
// clock.
#include <chrono>
#include <optional>
#include <vector>

#include "mezzo/comm/exchange.h"

namespace mezzo {

/// What a rank tells of itself.
struct Heartbeat {
  std::uint64_t arrived = 0;  ///< sums that it has come to
  Phase phase = Phase::starting;
  std::uint64_t step = 0;
};

class FailureDetector {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// All ranks count as heard `now`.
  FailureDetector(int ranks, Time now) : entries_(static_cast<std::size_t>(ranks), Entry{now, {}}) {}

  void heard(int rank, Time now) { entries_[static_cast<std::size_t>(rank)].heard = now; }
  void heard(int rank, const Heartbeat& heartbeat, Time now) {
    entries_[static_cast<std::size_t>(rank)] = {now, heartbeat};
  }
  /// This process did not run for a while itself, so that it could hear of nobody: every silence begins anew.
  void awoke(Time now);

  const Heartbeat& heartbeat(int rank) const { return entries_[static_cast<std::size_t>(rank)].heartbeat; }

  /// Why `rank`, waited for since `since`, is to be given up by now, if it is; one that `came` only for
  /// silence. `slack` makes a silence count that much longer.
  std::optional<Absence> absence(int rank, bool came, Time since, Patience patience, Seconds slack,
                                 Time now) const;

 private:
  struct Entry {
    Time heard;
    Heartbeat heartbeat;
  };
  std::vector<Entry> entries_;  ///< [ranks]
};

}  // namespace mezzo
