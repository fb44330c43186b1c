#pragma once
// What identifies a run: the header of its trajectory, which its snapshots hold too. docs/file-formats.md
// describes it. It may come from anywhere: whatever is read is checked before it is used.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/train/run_folder.h"
#include "mezzo/zo/optimizer.h"
#include "mezzo/zo/parameter_space.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {

/// More steps than any run has: they stay exact as JSON numbers.
inline constexpr std::uint64_t most_steps = 1'000'000'000'000'000;

/// What a run is: enough to rebuild its trainables, and to tell whether a config continues it.
struct RunHeader {
  std::vector<IdentityEntry>
      identity;  ///< config keys, then model.hash, model.tokenizer, runtime.device, runtime.dtype
  std::vector<IdentityEntry> settings;  ///< config keys that may change; empty in version 1
  std::string base_model;               ///< path
  std::string base_hash;
  std::shared_ptr<const ParameterSpace> space;
  std::shared_ptr<const Optimizer> optimizer;
  std::uint64_t seed = 0;
  NoiseKind noise = NoiseKind::gaussian;
  std::int64_t resample_steps = 1;  ///< of RunNoise
  RecordShape records;
  std::uint64_t start_step = 0;                    ///< > 0: began from start_snapshot
  std::string start_snapshot;                      ///< a file's name in the run's folder; "" without one
  bool initial_adapter = false;                    ///< began from initial_adapter/
  std::map<std::string, std::string> fingerprint;  ///< what else can change bits

  const std::vector<TrainableSpec>& trainables() const { return space->trainables(); }
  std::vector<TrainableSpec> optimizer_state() const { return optimizer->state(trainables()); }
  RunNoise run_noise() const { return {.seed = seed, .noise = noise, .resample_steps = resample_steps}; }

  /// Of the newest version.
  std::string to_json() const;
  /// Of any version; what a version did not write has the value that it stood for. InputError naming `source`
  /// and the key for whatever is not as it has to be.
  static RunHeader from_json(const std::string& text, const std::string& source);
};

/// Where a run of this space leaves its result: an adapter, or a whole model.
inline std::string result_of(const RunFolder& folder, const ParameterSpace& space) {
  return space.has_adapter() ? folder.adapter() : folder.model();
}

/// The key of the tokenizer in a run's identity. Records of version 1 lack it.
inline constexpr const char* tokenizer_key = "model.tokenizer";

/// UsageError naming the first key whose value differs, and both values. A key that the run's record lacks
/// has the value that runs had before records held it; a record without the tokenizer's key agrees with any.
void check_identity(const RunHeader& run, const RunHeader& now, const std::string& folder);

}  // namespace mezzo
