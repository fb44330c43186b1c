#include "dry_run_backend.h"

namespace mezzo {

void DryRunBackend::upload(const PackedBatch& batch, DeviceBatch& destination) {
  const auto row = [](const std::vector<std::int32_t>& values) {
    return dense(nullptr, DType::i32, 1, static_cast<std::int64_t>(values.size()));
  };
  destination.shape = shape_of(batch);
  destination.tokens = row(batch.tokens);
  destination.positions = row(batch.positions);
  destination.offsets = row(batch.offsets);
  destination.loss_rows = row(batch.loss_rows);
  destination.target_rows = row(batch.target_rows);
  destination.target_tokens = row(batch.target_tokens);
}

}  // namespace mezzo
