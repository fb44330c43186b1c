#pragma once
// What the launcher that started this process says about the job, before any library is asked.
#include <optional>
#include <string>
#include <vector>

namespace mezzo {

struct Launch {
  int rank = 0;
  int size = 0;                    ///< ranks of the job; 0 = the launcher does not say
  std::string variable;            ///< the environment variable that told
  std::string rank_variable = {};  ///< the one that holds the rank
};

/// Nothing when no launcher is known to have started this process.
std::optional<Launch> launch_from_environment();

/// Ranks of this job on this host, started by the same parent, whose processes are stopped (by SIGSTOP, say),
/// ascending: what /proc tells where the ranks themselves cannot talk yet.
std::vector<int> stopped_local_ranks(const Launch& launch);

}  // namespace mezzo
