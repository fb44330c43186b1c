#pragma once
#include "launch.h"
#include "mezzo/comm/exchange.h"

namespace mezzo {

/// The ranks that `launch` told of, over MPI. Throws UsageError when MPI does not see them, or, in a build
/// without MPI (mpi_absent.cc), always. `start_timeout`: as for make_exchange().
std::unique_ptr<Exchange> make_mpi_exchange(int& argc, char**& argv, const Launch& launch,
                                            Seconds start_timeout);

}  // namespace mezzo
