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
  const std::int64_t decoding = batch.decodes() ? batch.probes : 0;
  destination.positions = row(batch.positions, decoding);
  destination.offsets = row(batch.offsets);
  destination.loss_rows = row(batch.loss_rows);
  destination.target_rows = row(batch.target_rows);
  destination.target_tokens = row(batch.target_tokens, batch.probes);
  destination.cache_rows = row(batch.cache_rows, decoding);
  destination.prompt_begins = row(batch.prompt_begins, decoding);
  destination.prompt_lengths = row(batch.prompt_lengths, decoding);
  destination.draw_keys = row(batch.draw_keys, decoding);
  destination.draw_places = row(batch.draw_places, decoding);
}

}  // namespace mezzo
