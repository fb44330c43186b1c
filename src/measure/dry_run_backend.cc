#include "dry_run_backend.h"

namespace mezzo {

void DryRunBackend::upload(const PackedBatch& batch, DeviceBatch& destination) {
  const auto row = [](const std::vector<std::int32_t>& values, std::int64_t probes = 0) {
    View view = dense(nullptr, DType::i32, 1, std::ssize(values) / std::max<std::int64_t>(probes, 1));
    if (probes > 0) view.probe_stride = view.cols;
    return view;
  };
  destination.shape = shape_of(batch);
  destination.probes = batch.probes;
  destination.tokens = row(batch.tokens, batch.probes);
  destination.positions = row(batch.positions);
  destination.offsets = row(batch.offsets);
  destination.loss_rows = row(batch.loss_rows);
  destination.target_rows = row(batch.target_rows);
  destination.target_tokens = row(batch.target_tokens, batch.probes);
}

}  // namespace mezzo
