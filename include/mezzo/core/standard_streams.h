#pragma once
// The descriptors 0, 1 and 2, which every process is meant to have.

namespace mezzo {

/// Opens those of them that are closed on /dev/null. Otherwise the first files that the process opens would
/// get their numbers, and what is written to standard output or standard error would end up in a trajectory.
/// False when the system does not open it. main() calls this before anything that may open a file.
bool open_standard_streams();

}  // namespace mezzo
