#include <fmt/format.h>

#include "mpi_exchange.h"

namespace mezzo {

std::unique_ptr<Exchange> make_mpi_exchange(int&, char**&, const Launch& launch, Seconds) {
  const std::string ranks = launch.size > 0 ? fmt::format("{} ranks", launch.size) : "several ranks";
  throw UsageError(
      "this build of Mezzo has no MPI and runs one rank, but the launcher started {} ({} is set); install "
      "MPI and build again, or start a single process",
      ranks, launch.variable);
}

}  // namespace mezzo
