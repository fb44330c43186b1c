#include "mezzo/train/probe_runner.h"

#include <algorithm>

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
  decoder_.upload(batch, batch_);
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

}  // namespace mezzo
