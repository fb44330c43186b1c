#pragma once
// Whether the lists that a host makes of a step and of the trainables fit in its memory, asked before they
// are made. What a device holds is planned apart (mezzo/train/planner.h).
#include <cstddef>
#include <cstdint>
#include <span>

#include "mezzo/core/config.h"
#include "mezzo/model/lora.h"

namespace mezzo {

/// UsageError naming a key, its value and the largest with which a step's examples, probes and slots can be
/// listed in `memory` bytes, where they cannot. `example_tokens`: of an example, on average.
void check_step_fits(const Config& config, double example_tokens, std::size_t memory);
/// The same of lora.r, which made these trainables of rank `r`, with `kept` numbers of an optimizer's state;
/// DeviceError where not even rank 1 would fit.
void check_trainables_fit(std::span<const TrainableSpec> trainables, std::int64_t kept, std::int64_t r,
                          std::size_t memory);
/// The same of weights that are trained themselves; UsageError.
void check_weights_fit(std::string_view space, std::span<const TrainableSpec> trainables, std::int64_t kept,
                       std::size_t memory);

}  // namespace mezzo
