#pragma once
// The config of a run that goes on. What the user leaves unwritten keeps the value that the run has had since
// it began, so that no run changes when a default does.
#include <functional>
#include <optional>
#include <string>

#include "mezzo/core/config.h"
#include "mezzo/train/run_header.h"

namespace mezzo {

/// The record of the run that `config` goes on with: of the snapshot that it names, else of what its
/// output_dir holds. None for a fresh run, and where nothing there can be read: start_run() says then what is
/// wrong.
std::optional<RunHeader> run_to_continue(const Config& config, bool overwrite);

/// `config` with the run's values of what it does not write. Where they do not go with what it writes it is
/// `config` as it is: check_identity() then says in what the two differ.
Config resumed_config(const Config& config, const RunHeader& run);

/// "zo.directions = 8, lora.r = 4": what `resumed` has taken over from its run; "" for nothing.
std::string taken_over(const Config& config, const Config& resumed);

}  // namespace mezzo
