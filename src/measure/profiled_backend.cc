#include "profiled_backend.h"

#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/measure/timing.h"

namespace mezzo {
namespace {

/// Matrices that a view stands for.
double copies_of(const View& view, const ProbeTable& table) {
  return view.shared() ? 1.0 : static_cast<double>(table.count());
}

Work kind_of(ProductRole role) {
  switch (role) {
    case ProductRole::attention_input:
      return Work::qkv;
    case ProductRole::attention_output:
      return Work::attention_output;
    case ProductRole::mlp_input:
      return Work::mlp_input;
    case ProductRole::mlp_output:
      return Work::mlp_output;
    case ProductRole::router:
      return Work::router;
    case ProductRole::expert_input:
      return Work::expert_input;
    case ProductRole::expert_output:
      return Work::expert_output;
    case ProductRole::embedding_projection:
      return Work::embedding_projection;
    case ProductRole::head:
      return Work::head;
  }
  throw Error("a product has no role");
}

}  // namespace

ProfiledBackend::ProfiledBackend(Backend& inner, const Description& description)
    : BackendOver(inner), inner_(inner) {
  for (const Part& part : decoder_spec(description).parts) {
    const auto* const product = std::get_if<ProductSpec>(&part);
    if (product != nullptr) works_[product->name()] = kind_of(product->role);
  }
}

Work ProfiledBackend::work_of(const Product& product) const {
  const auto found = works_.find(product.name);
  if (found == works_.end())
    throw Error("product {}: the profiled model has none of that name", product.name);
  return found->second;
}

void ProfiledBackend::run(Work work, const std::function<void()>& operation) {
  if (watch_ != Watch::nothing) ++tally(work).calls;
  if (watch_ != Watch::time) return operation();
  inner_.synchronize();
  tally(work).seconds += seconds_of([&] {
    operation();
    inner_.synchronize();
  });
}

void ProfiledBackend::count_bytes(Work work, const ProbeTable& table, std::span<const View> views) {
  if (watch_ == Watch::nothing) return;
  for (const View& view : views) {
    if (!view) continue;
    tally(work).bytes +=
        copies_of(view, table) *
        static_cast<double>(static_cast<std::size_t>(view.rows * view.cols) * size_of(view.dtype));
  }
}

void ProfiledBackend::count_product(const ProbeTable& table, const Product& product, std::size_t first,
                                    std::size_t count, const View& x, double rows) {
  if (watch_ == Watch::nothing) return;
  const auto in = static_cast<double>(product.in());
  WorkTally& of_product = tally(work_of(product));
  for (std::size_t i = first; i < first + count; ++i) {
    const ProductPart& part = product.parts[i];
    const auto out = static_cast<double>(part.rows);
    of_product.products += 2.0 * copies_of(x, table) * rows * out * in;
    if (part.tail() == nullptr) continue;
    const auto probes = static_cast<double>(table.count());
    of_product.low_rank += 2.0 * probes * rows * static_cast<double>(part.tail_rank()) * (in + out);
  }
}

void ProfiledBackend::read(std::span<float> destination, View source, std::int64_t probes) {
  run(Work::transfer, [&] { inner_.read(destination, source, probes); });
}

void ProfiledBackend::read(std::span<std::int32_t> destination, View source, std::int64_t probes) {
  run(Work::transfer, [&] { inner_.read(destination, source, probes); });
}

void ProfiledBackend::upload(const PackedBatch& batch, DeviceBatch& destination) {
  Pairs& pairs = pairs_[&destination] = {};
  std::vector<double> keys;  // of each row: the tokens of its sequence up to it
  for (std::size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    for (std::int32_t row = batch.offsets[s]; row < batch.offsets[s + 1]; ++row)
      keys.push_back(static_cast<double>(row - batch.offsets[s]) + 1.0);
  }
  for (const double of_row : keys) pairs.all += of_row;
  for (const std::int32_t row : batch.loss_rows) pairs.read += keys.at(static_cast<std::size_t>(row));
  run(Work::transfer, [&] { inner_.upload(batch, destination); });
}

void ProfiledBackend::upload(std::span<const Probe> probes, NoiseKind noise, ProbeTable& destination) {
  run(Work::transfer, [&] { inner_.upload(probes, noise, destination); });
}

void ProfiledBackend::perturb(const ProbeTable& table, std::int64_t first, std::int64_t count,
                              const DenseNoise& noise, float offset, View destination) {
  View written = destination;
  written.probe_stride = 0;
  for (std::int64_t i = 0; i < count; ++i) count_bytes(Work::perturb, table, {{written}});
  count_bytes(Work::perturb, table, {{noise.value}});
  run(Work::perturb, [&] { inner_.perturb(table, first, count, noise, offset, destination); });
}

void ProfiledBackend::embed(const ProbeTable& table, const DeviceBatch& batch, View words, View places,
                            std::int64_t position_offset, View h) {
  const std::int64_t rows = batch.shape.tokens * (h.shared() ? 1 : table.count());
  View read = words;
  read.rows = rows;
  View places_read = places;
  places_read.rows = rows;
  count_bytes(Work::rows, table, {{read, places_read, h}});
  run(Work::rows, [&] { inner_.embed(table, batch, words, places, position_offset, h); });
}

void ProfiledBackend::residual_norm(const ProbeTable& table, View h_in, std::span<const View> deltas,
                                    View h_out, const Norm& norm, View x) {
  count_bytes(Work::norm, table, deltas);
  count_bytes(Work::norm, table, {{h_in, h_out, x}});
  run(Work::norm, [&] { inner_.residual_norm(table, h_in, deltas, h_out, norm, x); });
}

void ProfiledBackend::product(const ProbeTable& table, const Product& product, std::size_t first_part, View x,
                              std::span<const View> y, Epilogue epilogue) {
  std::int64_t width = 0;
  for (const View& view : y) width += epilogue.gated ? 2 * view.cols : view.cols;
  std::size_t count = 0;
  for (; width > 0; ++count) width -= product.parts.at(first_part + count).rows;
  count_product(table, product, first_part, count, x, static_cast<double>(x.rows));
  run(work_of(product), [&] { inner_.product(table, product, first_part, x, y, epilogue); });
}

void ProfiledBackend::rotate(const ProbeTable& table, const DeviceBatch& batch, const Rope& rope,
                             View row_index, std::int64_t head_dim, View x) {
  run(Work::attention, [&] { inner_.rotate(table, batch, rope, row_index, head_dim, x); });
}

void ProfiledBackend::attention(const ProbeTable& table, const DeviceBatch& batch,
                                const AttentionShape& shape, const Rope* rope, View q, View k, View v,
                                View query_rows, View out) {
  if (watch_ != Watch::nothing) {
    const Pairs& pairs = pairs_.at(&batch);
    // q.k and the weighted sum of v.
    tally(Work::attention).attention += 4.0 * static_cast<double>(shape.heads * shape.head_dim) *
                                        copies_of(out, table) *
                                        (query_rows.cols > 0 ? pairs.read : pairs.all);
  }
  run(Work::attention, [&] { inner_.attention(table, batch, shape, rope, q, k, v, query_rows, out); });
}

void ProfiledBackend::store(const ProbeTable& table, const DeviceBatch& batch, View k, View v,
                            const KeyValues& to) {
  count_bytes(Work::rows, table, {{k, v, k, v}});  // as much is written
  run(Work::rows, [&] { inner_.store(table, batch, k, v, to); });
}

void ProfiledBackend::decode_attention(const ProbeTable& table, const DeviceBatch& batch,
                                       const AttentionShape& shape, const Rope* rope, View q, View k, View v,
                                       const LayerCache& cache, View out) {
  run(Work::attention, [&] { inner_.decode_attention(table, batch, shape, rope, q, k, v, cache, out); });
}

void ProfiledBackend::next_tokens(const ProbeTable& table, const DeviceBatch& batch, const Product& head,
                                  View x, const Sampling& sampling, View out) {
  count_product(table, head, 0, head.parts.size(), x, static_cast<double>(x.rows));
  run(work_of(head), [&] { inner_.next_tokens(table, batch, head, x, sampling, out); });
}

void ProfiledBackend::gather(const ProbeTable& table, View x, View rows, View out) {
  count_bytes(Work::rows, table, {{out, out}});  // as much is read
  run(Work::rows, [&] { inner_.gather(table, x, rows, out); });
}

void ProfiledBackend::norm_heads(const ProbeTable& table, const Norm& norm, std::int64_t head_dim, View x) {
  count_bytes(Work::norm, table, {{x, x}});
  run(Work::norm, [&] { inner_.norm_heads(table, norm, head_dim, x); });
}

void ProfiledBackend::scale(const ProbeTable& table, float factor, View h) {
  count_bytes(Work::rows, table, {{h, h}});
  run(Work::rows, [&] { inner_.scale(table, factor, h); });
}

void ProfiledBackend::soft_cap(const ProbeTable& table, float cap, View x) {
  count_bytes(Work::rows, table, {{x, x}});
  run(Work::rows, [&] { inner_.soft_cap(table, cap, x); });
}

void ProfiledBackend::gate(const ProbeTable& table, Activation activation, View gate_up, View y) {
  count_bytes(Work::rows, table, {{gate_up, y}});
  run(Work::rows, [&] { inner_.gate(table, activation, gate_up, y); });
}

void ProfiledBackend::route(const ProbeTable& table, View logits, const Routing& routing) {
  run(Work::router, [&] { inner_.route(table, logits, routing); });
}

void ProfiledBackend::split_heads(const ProbeTable& table, const AttentionShape& shape, View x, View out) {
  count_bytes(Work::rows, table, {{x, out}});
  run(Work::rows, [&] { inner_.split_heads(table, shape, x, out); });
}

void ProfiledBackend::dispatch(const ProbeTable& table, const Routing& routing, View x, View out) {
  count_bytes(Work::rows, table, {{out, out}});  // as much is read
  run(Work::rows, [&] { inner_.dispatch(table, routing, x, out); });
}

void ProfiledBackend::count_experts(const ProbeTable& table, std::span<const Product* const> experts,
                                    const View& x, std::int64_t places) {
  // Every place is one expert's. Where they differ in their low-rank terms, the mean stands for them.
  const double rows = static_cast<double>(places) / static_cast<double>(experts.size());
  for (const Product* const expert : experts) count_product(table, *expert, 0, expert->parts.size(), x, rows);
}

void ProfiledBackend::expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                                     const Routing& routing, View x, View y, Epilogue epilogue) {
  count_experts(table, experts, x, x.rows);
  run(work_of(*experts.front()), [&] { inner_.expert_product(table, experts, routing, x, y, epilogue); });
}

void ProfiledBackend::dispatch_product(const ProbeTable& table, std::span<const Product* const> experts,
                                       const Routing& routing, View x, View y, Epilogue epilogue) {
  count_experts(table, experts, y, y.rows);
  run(work_of(*experts.front()), [&] { inner_.dispatch_product(table, experts, routing, x, y, epilogue); });
}

void ProfiledBackend::combine(const ProbeTable& table, const Routing& routing, View x, View out) {
  count_bytes(Work::rows, table, {{x, out}});
  run(Work::rows, [&] { inner_.combine(table, routing, x, out); });
}

void ProfiledBackend::score(const ProbeTable& table, const DeviceBatch& batch, const Product& head, View x,
                            View out) {
  count_product(table, head, 0, head.parts.size(), x, static_cast<double>(x.rows));
  run(work_of(head), [&] { inner_.score(table, batch, head, x, out); });
}

void ProfiledBackend::update(Trainables& trainables, Trainables& state, const UpdateStep& step,
                             NoiseKind noise) {
  run(Work::update, [&] { inner_.update(trainables, state, step, noise); });
}

std::uint64_t ProfiledBackend::hash(const Trainables& trainables) {
  std::uint64_t result = 0;
  run(Work::hash, [&] { result = inner_.hash(trainables); });
  return result;
}

}  // namespace mezzo
