// MPI's profiling interface tells when two threads of a rank are in MPI at the same time, which
// MPI_THREAD_SERIALIZED forbids: linked into tests/comm/job.cc. With MEZZO_TEST_SLOW_ABORT in the environment
// MPI_Abort says so and takes longer than the heartbeats' interval, so that an overlap with them cannot be
// missed.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace {

std::atomic<const char*> inside{nullptr};

class Inside {
 public:
  explicit Inside(const char* call) : call_(call) {
    const char* other = nullptr;
    if (!inside.compare_exchange_strong(other, call)) {
      std::fprintf(stderr, "MPI calls overlap: %s comes during %s\n", call, other);
    }
  }
  ~Inside() {
    const char* mine = call_;
    inside.compare_exchange_strong(mine, nullptr);
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  const char* call_;
};

}  // namespace

extern "C" {

int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request* request) {
  const Inside here("MPI_Isend");
  return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Improbe(int from, int tag, MPI_Comm comm, int* flag, MPI_Message* message, MPI_Status* status) {
  const Inside here("MPI_Improbe");
  return PMPI_Improbe(from, tag, comm, flag, message, status);
}

int MPI_Imrecv(void* data, int count, MPI_Datatype type, MPI_Message* message, MPI_Request* request) {
  const Inside here("MPI_Imrecv");
  return PMPI_Imrecv(data, count, type, message, request);
}

int MPI_Test(MPI_Request* request, int* flag, MPI_Status* status) {
  const Inside here("MPI_Test");
  return PMPI_Test(request, flag, status);
}

int MPI_Abort(MPI_Comm comm, int code) {
  const Inside here("MPI_Abort");
  if (std::getenv("MEZZO_TEST_SLOW_ABORT") != nullptr) {
    std::fprintf(stderr, "MPI_Abort is called\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  }
  return PMPI_Abort(comm, code);
}

int MPI_Finalize() {
  const Inside here("MPI_Finalize");
  return PMPI_Finalize();
}

}  // extern "C"
