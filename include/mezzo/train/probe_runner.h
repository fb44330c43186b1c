#pragma once
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

 private:
  Backend& backend_;
  Decoder& decoder_;
  DeviceBatch batch_;
  ProbeTable table_;
  Buffer scores_;              ///< [P][Q] fp32 in the backend's memory
  std::vector<float> result_;  ///< [P][Q]
};

}  // namespace mezzo
