#include "launch.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace mezzo {
namespace {

std::optional<int> integer_of(const char* text) {
  if (text == nullptr) return std::nullopt;
  const char* end = text + std::strlen(text);
  int value = 0;
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < 0) return std::nullopt;
  return value;
}

std::optional<int> integer(const char* variable) {
  return integer_of(variable != nullptr ? std::getenv(variable) : nullptr);
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
    return Launch{*rank, size.value_or(0), launcher.size != nullptr ? launcher.size : launcher.rank,
                  launcher.rank};
  }
  return std::nullopt;
}

std::vector<int> stopped_local_ranks(const Launch& launch) {
  std::vector<int> ranks;
  std::error_code error;
  for (const auto& process : std::filesystem::directory_iterator("/proc", error)) {
    std::string stat;
    std::getline(std::ifstream(process.path() / "stat"), stat);
    const std::size_t name_end = stat.rfind(')');  // "pid (name) state parent ..."
    char state = 0;
    int parent = 0;
    if (name_end == std::string::npos ||
        std::sscanf(stat.c_str() + name_end + 1, " %c %d", &state, &parent) != 2 ||
        (state != 'T' && state != 't') || parent != getppid()) {
      continue;
    }
    std::ifstream environment(process.path() / "environ", std::ios::binary);
    for (std::string entry; std::getline(environment, entry, '\0');) {
      if (!entry.starts_with(launch.rank_variable + "=")) continue;
      if (const std::optional<int> rank = integer_of(entry.c_str() + launch.rank_variable.size() + 1)) {
        ranks.push_back(*rank);
      }
    }
  }
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

}  // namespace mezzo
