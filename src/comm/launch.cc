#include "launch.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

namespace mezzo {
namespace {

std::optional<int> integer(const char* variable) {
  const char* text = variable != nullptr ? std::getenv(variable) : nullptr;
  if (text == nullptr) return std::nullopt;
  const char* end = text + std::strlen(text);
  int value = 0;
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < 0) return std::nullopt;
  return value;
}

}  // namespace

std::optional<Launch> launch_from_environment() {
  // Innermost launcher first: mpirun within a Slurm job leaves both kinds of variables. Slurm's SLURM_NTASKS
  // is not asked, since a batch script's own shell has it too, and one process there is a job of one rank.
  struct Launcher {
    const char* rank;
    const char* size;
  };
  static constexpr Launcher launchers[] = {
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},  // Open MPI
      {"PMI_RANK", "PMI_SIZE"},                          // MPICH, Intel MPI, srun --mpi=pmi2
      {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},          // srun
      {"PMIX_RANK", nullptr},                            // others that speak PMIx
  };
  for (const Launcher& launcher : launchers) {
    const std::optional<int> rank = integer(launcher.rank);
    const std::optional<int> size = integer(launcher.size);
    if (!rank || (launcher.size != nullptr && !size)) continue;
    return Launch{*rank, size.value_or(0), launcher.size != nullptr ? launcher.size : launcher.rank};
  }
  return std::nullopt;
}

}  // namespace mezzo
