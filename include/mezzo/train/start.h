#pragma once
// Where a run begins, decided by what its folder holds.
#include <cstdint>
#include <string>

#include "mezzo/train/inputs.h"
#include "mezzo/train/replay.h"

namespace mezzo {

/// What rank 0 finds, and all ranks do.
struct RunStart {
  bool resume = false;
  bool finished = false;          ///< nothing is left to do
  std::uint64_t step = 0;         ///< steps done
  std::uint64_t valid_bytes = 0;  ///< of the trajectory, up to `step`

  std::string text() const;
  /// CommError for what is none of text().
  static RunStart from_text(const std::string& text);
};

/// Looks at a folder that exists and is locked, as train.resume_from_checkpoint says, and leaves there either
/// the run that goes on or the first files of a fresh one. `overwrite`: finished steps may be replaced.
/// `header` says what the config asks for, and becomes that of the run in the folder where it goes on.
/// UsageError when that is another run, or finished steps would be lost.
RunStart start_run(const Config& config, const Inputs& inputs, const RunFolder& folder, bool overwrite,
                   RunHeader& header, const Warn& warn);

}  // namespace mezzo
