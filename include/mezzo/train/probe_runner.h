#pragma once
#include <functional>
#include <span>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/data/task.h"
#include "mezzo/model/decoder.h"
#include "mezzo/train/planner.h"
#include "mezzo/zo/slots.h"

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

/// The work of a step: every probe on every slice.
struct StepItems {
  std::span<const Probe> probes;
  std::span<const std::vector<const Example*>> slices;
  TaskLoss loss = TaskLoss::options;
  NoiseKind noise = NoiseKind::gaussian;
  bool paired = true;  ///< two_sided: probes 2k and 2k + 1 share their noise

  StepUnits units() const;
};

/// Evaluates `work`, one forward an item, and hands on the loss of each (probe, slice).
void evaluate_items(ProbeRunner& runner, const StepItems& items, std::span<const WorkItem> work,
                    const std::function<void(std::int64_t probe, std::int64_t slice, SliceLoss)>& result);
/// Fills `slots`, cleared, with what `rank` has to bring to a step's exchange: those of its work and the
/// seconds that it took.
void evaluate_items(ProbeRunner& runner, const StepItems& items, std::span<const WorkItem> work, int rank,
                    SlotTable& slots);

}  // namespace mezzo
