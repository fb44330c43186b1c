#pragma once
// What identifies a run: the header of its trajectory, which its snapshots hold too.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/model/lora.h"

namespace mezzo {

/// What a run is: enough to rebuild its trainables, and to tell whether a config continues it.
struct RunHeader {
  std::vector<IdentityEntry>
      identity;            ///< config keys, then model.hash, model.tokenizer, runtime.device, runtime.dtype
  std::string base_model;  ///< path
  std::string base_hash;
  AdapterConfig adapter;
  std::vector<TrainableSpec> trainables;
  std::uint64_t seed = 0;
  std::int64_t directions = 1;
  NoiseKind noise = NoiseKind::gaussian;
  float weight_decay = 0.0f;
  std::uint64_t start_step = 0;                    ///< > 0: began from start.h5
  bool initial_adapter = false;                    ///< began from initial_adapter/
  std::map<std::string, std::string> fingerprint;  ///< what else can change bits

  std::string to_json() const;
  /// InputError naming `source`.
  static RunHeader from_json(const std::string& text, const std::string& source);
};

/// The key of the tokenizer in a run's identity. Records of early versions lack it.
inline constexpr const char* tokenizer_key = "model.tokenizer";

/// UsageError naming the first key whose value differs, and both values. A record without the tokenizer's key
/// agrees with any.
void check_identity(const RunHeader& run, const RunHeader& now, const std::string& folder);

/// The JSON text of an adapter's config, as headers and snapshots hold it.
std::string lora_json(const AdapterConfig& config);

}  // namespace mezzo
