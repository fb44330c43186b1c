#pragma once
// What the launcher that started this process says about the job, before any library is asked.
#include <optional>
#include <string>

namespace mezzo {

struct Launch {
  int rank = 0;
  int size = 0;          ///< ranks of the job; 0 = the launcher does not say
  std::string variable;  ///< the environment variable that told
};

/// Nothing when no launcher is known to have started this process.
std::optional<Launch> launch_from_environment();

}  // namespace mezzo
