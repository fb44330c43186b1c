#include "mezzo/train/probe_runner.h"

#include <algorithm>
#include <chrono>

namespace mezzo {

void ProbeRunner::reserve(const BatchShape& largest, std::int64_t probes) {
  decoder_.reserve(largest, probes);
  const auto scores = static_cast<std::size_t>(std::max<std::int64_t>(1, probes * largest.targets));
  if (scores > result_.size()) {
    scores_ = backend_.allocate(scores * sizeof(float));
    result_.resize(scores);
  }
}

void ProbeRunner::begin(const PackedBatch& batch) {
  backend_.upload(batch, batch_);
  decoder_.begin(batch_);
}

std::span<const float> ProbeRunner::evaluate(std::span<const Probe> probes, NoiseKind noise) {
  backend_.upload(probes, noise, table_);
  const std::int64_t targets = batch_.shape.targets;
  View scores = dense(scores_.data(), DType::f32, 1, targets);
  scores.probe_stride = targets;
  decoder_.evaluate(table_, scores);
  const std::span<float> result(result_.data(), probes.size() * static_cast<std::size_t>(targets));
  backend_.read(result, scores, table_.count());
  return result;
}

StepUnits StepItems::units() const {
  return units_of(slices, loss, static_cast<std::int64_t>(probes.size()), paired);
}

void evaluate_items(ProbeRunner& runner, const StepItems& items, std::span<const WorkItem> work,
                    const std::function<void(std::int64_t probe, std::int64_t slice, SliceLoss)>& result) {
  std::int64_t begun_slice = -1;
  LossBatch batch;
  for (const WorkItem& item : work) {
    if (item.slice != begun_slice) {
      batch = pack(items.slices[static_cast<std::size_t>(item.slice)], items.loss,
                   items.loss == TaskLoss::options);
      runner.begin(batch.packed);
      begun_slice = item.slice;
    }
    const auto group = items.probes.subspan(static_cast<std::size_t>(item.first_probe),
                                            static_cast<std::size_t>(item.probes));
    const std::span<const float> scores = runner.evaluate(group, items.noise);
    const std::size_t targets = batch.packed.target_tokens.size();
    for (std::size_t p = 0; p < group.size(); ++p) {
      result(item.first_probe + static_cast<std::int64_t>(p), item.slice,
             loss_of(batch, scores.subspan(p * targets, targets)));
    }
  }
}

void evaluate_items(ProbeRunner& runner, const StepItems& items, std::span<const WorkItem> work, int rank,
                    SlotTable& slots) {
  slots.clear();
  const auto start = std::chrono::steady_clock::now();
  evaluate_items(runner, items, work, [&](std::int64_t probe, std::int64_t slice, SliceLoss loss) {
    slots.set(probe, slice, items.probes[static_cast<std::size_t>(probe)].seed, loss.sum, loss.weight);
  });
  slots.set_work_seconds(rank,
                         std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace mezzo
