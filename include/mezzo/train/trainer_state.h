#pragma once
// trainer_state.json beside an adapter: which step of a run the adapter is of, under the names that Hugging
// Face's trainer has for it. PEFT passes over the file.
#include <cstdint>
#include <optional>
#include <string>

namespace mezzo {

/// That it is of a run's best step.
struct BestNote {
  std::string metric;  ///< of metrics.jsonl
  double value = 0.0;
};

/// `directory`: the adapter's, which exists. `best`: none when it is merely of step `steps_done`.
void write_trainer_state(const std::string& directory, std::uint64_t steps_done,
                         const std::optional<BestNote>& best);
/// What the file says, or nothing where there is none. InputError for one that cannot be read.
std::optional<std::uint64_t> read_trainer_step(const std::string& directory);
/// An adapter that is of no run has none.
void remove_trainer_state(const std::string& directory);

}  // namespace mezzo
