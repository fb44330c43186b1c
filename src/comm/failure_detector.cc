#include "failure_detector.h"

namespace mezzo {

std::string_view name_of(Phase phase) {
  switch (phase) {
    case Phase::starting:
      return "start-up";
    case Phase::loading:
      return "loading";
    case Phase::forward:
      return "forward";
    case Phase::update:
      return "update";
    case Phase::evaluation:
      return "evaluation";
    case Phase::saving:
      return "saving";
  }
  return "unknown phase";
}

void FailureDetector::awoke(Time now) {
  for (Entry& entry : entries_) entry.heard = now;
}

std::optional<Absence> FailureDetector::absence(int rank, bool came, Time since, Patience patience,
                                                Seconds slack, Time now) const {
  const Entry& entry = entries_[static_cast<std::size_t>(rank)];
  const Seconds quiet = now - entry.heard;
  const Seconds waited = now - since;
  const bool silent = quiet + slack >= patience.silence;
  if (!silent && (came || waited < patience.work)) return std::nullopt;
  return Absence{.rank = rank,
                 .alive = !silent,
                 .waited = silent ? quiet : waited,
                 .phase = entry.heartbeat.phase,
                 .step = entry.heartbeat.step};
}

}  // namespace mezzo
