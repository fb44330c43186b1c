#include "mezzo/backend/backend.h"

#include <string_view>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

[[noreturn]] void refuse(const Backend& backend, std::string_view what) {
  throw DeviceError("device {}: {} are not served there", backend.name(), what);
}

[[noreturn]] void refuse_mixtures(const Backend& backend) { refuse(backend, "mixtures of experts"); }

}  // namespace

DeviceBatch of_probe(const DeviceBatch& batch, std::int64_t p) {
  DeviceBatch one;
  one.shape = batch.shape;
  one.probes = 1;
  for (View DeviceBatch::*const row :
       {&DeviceBatch::tokens, &DeviceBatch::positions, &DeviceBatch::offsets, &DeviceBatch::loss_rows,
        &DeviceBatch::target_rows, &DeviceBatch::target_tokens, &DeviceBatch::cache_rows,
        &DeviceBatch::prompt_begins, &DeviceBatch::prompt_lengths, &DeviceBatch::draw_keys,
        &DeviceBatch::draw_places})
    one.*row = (batch.*row).probe(p);
  return one;
}

void Backend::store(const ProbeTable&, const DeviceBatch&, View, View, const KeyValues&) {
  refuse(*this, "caches of keys and values");
}
void Backend::decode_attention(const ProbeTable&, const DeviceBatch&, const AttentionShape&, const Rope*,
                               View, View, View, const LayerCache&, View) {
  refuse(*this, "caches of keys and values");
}
void Backend::next_tokens(const ProbeTable&, const DeviceBatch&, const Product&, View, const Sampling&,
                          View) {
  refuse(*this, "choices of next tokens");
}
void Backend::split_heads(const ProbeTable&, const AttentionShape&, View, View) {
  throw DeviceError("device {}: queries, keys and values that lie head by head are not served", name());
}
void Backend::norm_heads(const ProbeTable&, const Norm&, std::int64_t, View) {
  refuse(*this, "norms of heads");
}
void Backend::scale(const ProbeTable&, float, View) { refuse(*this, "scaled rows"); }
void Backend::soft_cap(const ProbeTable&, float, View) { refuse(*this, "soft caps"); }
void Backend::gate(const ProbeTable&, Activation, View, View) { refuse(*this, "gates of one module"); }
void Backend::route(const ProbeTable&, View, const Routing&) { refuse_mixtures(*this); }
void Backend::dispatch(const ProbeTable&, const Routing&, View, View) { refuse_mixtures(*this); }
void Backend::expert_product(const ProbeTable&, std::span<const Product* const>, const Routing&, View, View,
                             Epilogue) {
  refuse_mixtures(*this);
}
void Backend::dispatch_product(const ProbeTable&, std::span<const Product* const>, const Routing&, View, View,
                               Epilogue) {
  refuse(*this, "products of experts over rows where they are");
}
void Backend::combine(const ProbeTable&, const Routing&, View, View) { refuse_mixtures(*this); }

void check_served(const DevicePlan& plan, const Workload& workload) {
  for (const PlannedProduct& planned : workload.products) {
    const Weight& weight = planned.product->weight;
    if (!plan.serves(weight)) {
      throw DeviceError("device {}: the weight of {} is {} on {}, which this device does not serve",
                        plan.name(), planned.product->name, name_of(weight.type), name_of(weight.residence));
    }
    if (planned.routing && !plan.serves(*planned.routing)) {
      throw DeviceError(
          "device {}: {} is one of {} experts of which {} are chosen, more than this device serves",
          plan.name(), planned.product->name, planned.routing->experts, planned.routing->chosen);
    }
    for (const ProductPart& part : planned.product->parts) {
      if (!plan.serves(part.perturbation)) {
        throw DeviceError(
            "device {}: the perturbation of {} is of the kind {}, which this device does not serve",
            plan.name(), part.name, name_of(part.perturbation));
      }
      if (planned.scored && part.perturbed()) {
        throw DeviceError("device {}: {} is perturbed ({}), which no device serves in the vocabulary's head",
                          plan.name(), part.name, name_of(part.perturbation));
      }
    }
  }
}

}  // namespace mezzo
