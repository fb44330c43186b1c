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
  const auto tokens =
      static_cast<std::size_t>(probes * (largest.cache ? std::max(largest.targets, largest.cache.slots) : 0));
  if (tokens > tokens_.size()) {
    chosen_ = backend_.allocate(tokens * sizeof(std::int32_t));
    tokens_.resize(tokens);
  }
}

void ProbeRunner::begin(const PackedBatch& batch) {
  decoder_.upload(batch, batch_);
  decoder_.begin(batch_);
}

std::span<const std::int32_t> ProbeRunner::prefill(const PackedBatch& batch, std::span<const Probe> probes,
                                                   NoiseKind noise, const Sampling& sampling) {
  backend_.upload(probes, noise, table_);
  backend_.keep_apart(batch.offsets);
  begin(batch);
  return next_tokens(batch_, [&](View chosen) { decoder_.prefill(table_, sampling, chosen); });
}

std::span<const std::int32_t> ProbeRunner::decode(const PackedBatch& batch, const Sampling& sampling) {
  backend_.keep_apart(batch.offsets);
  decoder_.upload(batch, decoding_);
  return next_tokens(decoding_, [&](View chosen) { decoder_.decode(decoding_, table_, sampling, chosen); });
}

std::span<const std::int32_t> ProbeRunner::next_tokens(const DeviceBatch& batch,
                                                       const std::function<void(View)>& run) {
  const std::int64_t targets = batch.shape.targets;
  View chosen = dense(chosen_.data(), DType::i32, 1, targets);
  chosen.probe_stride = targets;
  run(chosen);
  backend_.keep_apart({});
  const std::span<std::int32_t> tokens(tokens_.data(), static_cast<std::size_t>(table_.count() * targets));
  backend_.read(tokens, chosen, table_.count());
  return tokens;
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
