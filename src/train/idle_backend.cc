#include "idle_backend.h"

namespace mezzo {

void IdleBackend::upload(const PackedBatch& batch, DeviceBatch& destination) {
  const auto row = [](const std::vector<std::int32_t>& values) {
    return dense(nullptr, DType::i32, 1, static_cast<std::int64_t>(values.size()));
  };
  destination.shape = shape_of(batch);
  destination.tokens = row(batch.tokens);
  destination.positions = row(batch.positions);
  destination.offsets = row(batch.offsets);
  destination.reads = row(batch.reads);
  destination.question_reads = row(batch.question_reads);
  destination.question_tokens = row(batch.question_tokens);
}

}  // namespace mezzo
