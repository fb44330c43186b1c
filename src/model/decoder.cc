#include "mezzo/model/decoder.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "forward.h"
#include "mezzo/core/error.h"
#include "rope.h"
#include "weights.h"

namespace mezzo {

Decoder::Decoder(Backend& backend, const Description& description, const Perturbations& perturbations)
    : Decoder(backend, &backend, description, perturbations) {}

Decoder::Decoder(const DevicePlan& plan, const Description& description, const Perturbations& perturbations)
    : Decoder(plan, nullptr, description, perturbations) {}

Decoder::Decoder(const DevicePlan& plan, Backend* backend, const Description& description,
                 const Perturbations& perturbations)
    : plan_(plan),
      backend_(backend),
      description_(description),
      spec_(decoder_spec(description)),
      weights_(std::make_unique<DecoderWeights>(plan, spec_, perturbations)) {
  check_served(spec_, plan);
}

Decoder::~Decoder() = default;

Backend& Decoder::backend() const {
  if (backend_ == nullptr) throw Error("a decoder without a device was to run");
  return *backend_;
}

void Decoder::load(const ModelFiles& files, const LoadProgress& progress) {
  weights_->load(backend(), files, progress);
  refresh();
}

void Decoder::randomize(std::uint64_t seed, float scale) {
  weights_->randomize(backend(), seed, scale);
  refresh();
}

void Decoder::refresh() { weights_->refresh(backend()); }

std::size_t Decoder::weight_bytes() const { return weights_->bytes(); }

std::size_t Decoder::activation_bytes(const BatchShape& largest, std::int64_t probes) const {
  return Forward(plan_, nullptr, spec_, *weights_, Arena(), largest.longest, largest.cache, probes)
      .measure(largest, probes);
}

Workload Decoder::workload(const BatchShape& largest, std::int64_t probes) const {
  Workload workload{.largest = largest, .probes = probes, .products = {}, .attention = {}};
  for (std::int64_t BatchShape::*const size :
       {&BatchShape::tokens, &BatchShape::loss_rows, &BatchShape::targets})
    workload.largest.*size = std::max(largest.*size, largest.cache.slots);  // rows of decoding
  for (PartIndex part = 0; part < spec_.parts.size(); ++part) {
    if (const auto* product = std::get_if<ProductSpec>(&spec_.parts[part])) {
      if (is_expert(product->role)) continue;
      workload.products.emplace_back(&weights_->product(part), product->epilogue,
                                     product->role == ProductRole::head);
      workload.products.back().to_fp32 = product->role == ProductRole::router;
    }
  }
  for (const BlockSpec& block : spec_.blocks) {  // all of one size: check_served()
    if (const auto* attention = std::get_if<AttentionSpec>(&block.core))
      workload.attention = attention->shape;
    const auto* const mixture = std::get_if<MixtureSpec>(&block.core);
    if (mixture == nullptr) continue;
    for (const auto* const parts : {&mixture->inputs, &mixture->outputs}) {
      for (const PartIndex part : *parts)
        workload.products.emplace_back(&weights_->product(part), spec_.at<ProductSpec>(part).epilogue,
                                       mixture->rule);
    }
  }
  return workload;
}

void Decoder::reserve(const BatchShape& largest, std::int64_t probes) {
  if (largest.longest > description_.max_positions) {
    throw InputError("a sequence has {} tokens, but the model has {}", largest.longest,
                     description_.positions_text());
  }
  for (const Reservation& before : reserved_) {
    if (before.covers({largest, probes})) return;
  }
  // One arena serves every reservation: the rotary table is as long as the longest sequence of any, and the
  // cache as large as the largest.
  reserved_.push_back({largest, probes});
  std::int64_t longest = 0;
  CacheShape cache;
  std::int64_t cache_probes = 0;
  for (const Reservation& each : reserved_) {
    longest = std::max(longest, each.largest.longest);
    cache = largest_of(cache, each.largest.cache);
    if (each.largest.cache) cache_probes = std::max(cache_probes, each.probes);
  }
  std::size_t bytes = 0;
  for (const Reservation& each : reserved_) {
    bytes = std::max(bytes, Forward(plan_, nullptr, spec_, *weights_, Arena(), longest, cache, cache_probes)
                                .measure(each.largest, each.probes));
  }
  forward_.reset();  // its arena goes before the new one comes
  Arena arena(backend().allocate(bytes));
  forward_ = std::make_unique<Forward>(plan_, backend_, spec_, *weights_, std::move(arena), longest, cache,
                                       cache_probes);
  backend().prepare(workload(largest, probes));
}

bool Decoder::Reservation::covers(const Reservation& other) const {
  return other.largest.tokens <= largest.tokens && other.largest.sequences <= largest.sequences &&
         other.largest.loss_rows <= largest.loss_rows && other.largest.targets <= largest.targets &&
         other.largest.longest <= largest.longest &&
         largest_of(other.largest.cache, largest.cache) == largest.cache &&
         (largest.has_rows_without_loss() || !other.largest.has_rows_without_loss()) &&
         other.probes <= probes;
}

std::size_t Decoder::arena_high_water() const { return forward_ ? forward_->high_water() : 0; }

std::int64_t Decoder::first_perturbed_layer() const {
  const std::size_t block =
      Forward(plan_, nullptr, spec_, *weights_, Arena(), 0, {}, 0).first_perturbed_block();
  return block == spec_.blocks.size() ? description_.layers : spec_.blocks[block].layer;
}

void Decoder::upload(const PackedBatch& packed, DeviceBatch& batch) const {
  const std::int64_t longest =
      packed.decodes() ? std::ranges::max(packed.positions) + 1 : shape_of(packed).longest;
  const auto apart = [&](const RopeDescription& rope) { return rope.turns_long_ones_apart(longest); };
  if (std::ranges::none_of(spec_.ropes, apart)) return backend().upload(packed, batch);
  PackedBatch placed = packed;
  if (packed.decodes()) {
    for (std::int32_t& position : placed.positions)
      position += static_cast<std::int32_t>(first_rope_row(spec_.ropes.front(), position + 1));
    return backend().upload(placed, batch);
  }
  for (std::size_t s = 0; s + 1 < placed.offsets.size(); ++s) {
    const std::int32_t begin = placed.offsets[s], end = placed.offsets[s + 1];
    const auto first = static_cast<std::int32_t>(first_rope_row(spec_.ropes.front(), end - begin));
    for (std::int32_t row = begin; row < end; ++row) placed.positions[static_cast<std::size_t>(row)] += first;
  }
  backend().upload(placed, batch);
}

void Decoder::begin(const DeviceBatch& batch) {
  if (!weights_->loaded() || !forward_) throw Error("a decoder runs only after load() and reserve()");
  forward_->begin(batch);
}

void Decoder::check_begun() const {
  if (!forward_ || !forward_->begun()) throw Error("a decoder evaluates only after begin()");
}

void Decoder::evaluate(const ProbeTable& table, View out) {
  check_begun();
  backend().repeat(forward_->key(table, out), [&] { forward_->score(table, out); });
}

void Decoder::prefill(const ProbeTable& table, const Sampling& sampling, View out) {
  check_begun();
  forward_->next_tokens(table, sampling, out);
}

void Decoder::decode(const DeviceBatch& batch, const ProbeTable& table, const Sampling& sampling, View out) {
  if (!weights_->loaded() || !forward_) throw Error("a decoder runs only after load() and reserve()");
  forward_->take_decoding(batch);
  std::vector<std::uint64_t> key = forward_->key(table, out);
  key.push_back(std::bit_cast<std::uint32_t>(sampling.temperature));
  key.push_back(std::bit_cast<std::uint32_t>(sampling.top_p));
  backend().repeat(key, [&] { forward_->next_tokens(table, sampling, out); });
}

void Decoder::logits(const ProbeTable& table, View out) {
  check_begun();
  forward_->logits(table, out);
}

}  // namespace mezzo
