#pragma once
// MPI's own start and end. Both wait for all ranks and cannot be given up, so that each has a deadline that
// ends the process.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <string>
#include <vector>

#include "launch.h"
#include "mezzo/comm/exchange.h"

namespace mezzo {

/// Throws CommError with MPI's text unless `status` is MPI_SUCCESS.
void check_mpi(int status, const char* call);

/// This process as a rank of an MPI job. MPI allows calls from any thread, one at a time
/// (MPI_THREAD_SERIALIZED): whoever shares comm() between threads sees to that.
class MpiJob {
 public:
  /// Starts MPI. UsageError when MPI does not see the ranks that `launch` told of. Where not all ranks have
  /// started within `limit`, the process ends with ExitCode::stopped and a message that names those that are
  /// seen to be missing.
  MpiJob(int& argc, char**& argv, Launch launch, Seconds limit);
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  int rank() const { return rank_; }
  const std::vector<RankHost>& hosts() const { return hosts_; }  ///< of every rank
  MPI_Comm comm() const { return comm_; }                        ///< its own, of all ranks
  const std::string& library() const { return library_; }        ///< its name and version

  /// Ends MPI, to which all ranks come together and with nothing under way; within `limit`, as the start.
  void finalize(Seconds limit);
  /// Whether the launcher ends all ranks when one leaves with a status other than 0, without MPI_Abort.
  bool launcher_ends_ranks() const;
  /// Has MPI end all ranks. May return.
  void abort(ExitCode code);

 private:
  Launch launch_;
  int rank_ = 0;
  std::vector<RankHost> hosts_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  std::string library_;
};

}  // namespace mezzo
