#include "mpi_job.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <thread>

#include "deadline.h"
#include "error_line.h"
#include "hosts.h"

namespace mezzo {
namespace {

using namespace std::chrono_literals;

/// Ends this process, which waits in `call` for ranks that do not come: `what` is wrong, and which ranks of
/// this host are to blame as far as that can be seen.
[[noreturn]] void give_up(const Launch& launch, const std::string& what, const char* call) {
  // Rank 0 speaks, or rank 1 where it cannot; the others only if neither does: the launcher ends them when
  // one has left, which takes it some seconds on a busy machine.
  if (launch.rank > 0) std::this_thread::sleep_for(3500ms + std::min(launch.rank - 1, 20) * 6s);
  const std::vector<int> stopped = stopped_local_ranks(launch);
  std::string who = "a rank on another host, or one that was never started";
  for (std::size_t i = 0; i < stopped.size(); ++i) {
    who = (i == 0 ? "" : who + ", ") +
          fmt::format("rank {} (stopped, on the host of rank {})", stopped[i], launch.rank);
  }
  write_last_error_line(fmt::format("{}: {} waits for {}", what, call, who));
  std::_Exit(static_cast<int>(ExitCode::stopped));
}

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  check_mpi(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string version(text.data(), static_cast<std::size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));  // its name and number come first
}

std::vector<RankHost> gather_hosts(MPI_Comm comm, int size) {
  struct Entry {
    std::array<char, MPI_MAX_PROCESSOR_NAME + 1> name;
    std::array<char, 80> memory;
  };
  Entry mine{};
  int length = 0;
  check_mpi(MPI_Get_processor_name(mine.name.data(), &length), "MPI_Get_processor_name");
  shared_memory_identity().copy(mine.memory.data(), mine.memory.size() - 1);
  std::vector<Entry> all(static_cast<std::size_t>(size));
  check_mpi(MPI_Allgather(&mine, sizeof(Entry), MPI_BYTE, all.data(), sizeof(Entry), MPI_BYTE, comm),
            "MPI_Allgather");
  std::vector<Place> places;
  for (const Entry& entry : all) places.push_back({.name = entry.name.data(), .memory = entry.memory.data()});
  return hosts_of(places);
}

}  // namespace

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(status, text.data(), &length) != MPI_SUCCESS) length = 0;
  throw CommError("{} failed with error {}: {}", call, status,
                  std::string(text.data(), static_cast<std::size_t>(length)));
}

MpiJob::MpiJob(int& argc, char**& argv, Launch launch, Seconds limit) : launch_(std::move(launch)) {
  const Deadline deadline(limit, [this, limit] {
    give_up(launch_,
            fmt::format("the job has not come up within {:g} s (runtime.start_timeout_s)", limit.count()),
            "MPI_Init");
  });
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (provided < MPI_THREAD_SERIALIZED) {
    throw CommError("the MPI library does not support threads (MPI_THREAD_SERIALIZED)");
  }
  int size = 0;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  if (launch_.size > 0 && launch_.size != size) {
    throw UsageError(
        "the launcher started {} ranks ({}), but the MPI library sees {}: they do not belong together; start "
        "the ranks with the mpirun of the MPI that Mezzo was built with, or with srun --mpi=pmix",
        launch_.size, launch_.variable, size);
  }
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");  // with its error handler
  hosts_ = gather_hosts(comm_, size);
  library_ = library_version();
}

void MpiJob::finalize(Seconds limit) {
  const Deadline deadline(limit, [this, limit] {
    give_up(launch_, fmt::format("the job has not ended within {:g} s", limit.count()), "MPI_Finalize");
  });
  check_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free");
  check_mpi(MPI_Finalize(), "MPI_Finalize");
}

// MPI_Abort would have Open MPI's mpirun print a message of its own, and in 4.1 one time in three that
// message arrives while mpirun is already coming down, and mpirun reports internal errors or even crashes.
bool MpiJob::launcher_ends_ranks() const { return launch_.variable == "OMPI_COMM_WORLD_SIZE"; }

void MpiJob::abort(ExitCode code) { MPI_Abort(comm_, static_cast<int>(code)); }

}  // namespace mezzo
