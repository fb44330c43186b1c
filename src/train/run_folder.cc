#include "mezzo/train/run_folder.h"

#include "mezzo/io/files.h"
#include "mezzo/train/snapshots.h"

namespace mezzo {

std::string RunFolder::snapshot(std::uint64_t step) const { return snapshots() + "/" + snapshot_name(step); }

bool RunFolder::has_trajectory() const { return file_exists(trajectory()) && file_size(trajectory()) > 0; }

}  // namespace mezzo
