#pragma once
#include <functional>
#include <span>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/model/decoder.h"

namespace mezzo {

/// Runs forwards on one backend: begin() a slice, then evaluate() groups of probes on it one after another.
class ProbeRunner {
 public:
  /// Both must outlive the runner; the decoder is loaded.
  ProbeRunner(Backend& backend, Decoder& decoder) : backend_(backend), decoder_(decoder) {}

  /// Makes room for slices and groups up to these sizes; may be called again for other ones.
  void reserve(const BatchShape& largest, std::int64_t probes);

  void begin(const PackedBatch& batch);
  /// [P][Q] log-probabilities, valid until the next call. Waits for the backend.
  std::span<const float> evaluate(std::span<const Probe> probes, NoiseKind noise);

  // ---- generation (mezzo/model/decoder.h). The tokens are valid until the next call; both wait.
  /// A batch of prompts for one group: [P][Q] the tokens behind its targets.
  std::span<const std::int32_t> prefill(const PackedBatch& batch, std::span<const Probe> probes,
                                        NoiseKind noise, const Sampling& sampling);
  /// A batch that decodes, for the group of the last prefill(): [P][Q].
  std::span<const std::int32_t> decode(const PackedBatch& batch, const Sampling& sampling);

 private:
  Backend& backend_;
  Decoder& decoder_;
  std::span<const std::int32_t> next_tokens(const DeviceBatch& batch, const std::function<void(View)>& run);

  DeviceBatch batch_;
  DeviceBatch decoding_;
  ProbeTable table_;
  Buffer scores_;                     ///< [P][Q] fp32 in the backend's memory
  std::vector<float> result_;         ///< [P][Q]
  Buffer chosen_;                     ///< [P][Q] i32 in the backend's memory
  std::vector<std::int32_t> tokens_;  ///< [P][Q]
};

}  // namespace mezzo
