// What the forward, and what each device, does of all that a decoder's list can say.
#include <string_view>

#include "forward.h"
#include "mezzo/core/error.h"

namespace mezzo {
namespace {

bool lies_in_a_module(const ProductSpec& product, const RowRange& rows) {
  std::int64_t begin = 0;
  for (const LinearModule& module : product.modules) {
    if (rows.begin >= begin && rows.begin + rows.count <= begin + module.out) return true;
    begin += module.out;
  }
  return false;
}

}  // namespace

void check_served(const DecoderSpec& spec) {
  const auto refuse = [](std::string_view what) {
    throw Error("a decoder's forward does not do {} yet", what);
  };
  const auto& embedding = spec.at<EmbeddingSpec>(spec.embedding);
  if (spec.positions && embedding.scale != 1.0f) refuse("scaled embeddings beside learned positions");
  if (embedding.offset != 0) refuse("tokens that begin further down their table");
  if (spec.positions && spec.at<EmbeddingSpec>(*spec.positions).scale != 1.0f) refuse("scaled positions");
  if (spec.project_in && !spec.positions) refuse("projected embeddings without learned positions");
  if (spec.project_in && embedding.scale != 1.0f) refuse("projected embeddings that are scaled");
  const AttentionSpec* first = nullptr;
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    const BlockSpec& block = spec.blocks[i];
    if (block.parallel) {
      if (spec.norm_after_sum) refuse("parallel blocks with norms behind the sums");
      const bool served =
          i > 0 && attention_of(block) == nullptr && attention_of(spec.blocks[i - 1]) != nullptr;
      if (!served) refuse("parallel blocks but an MLP beside the attention before it");
    }
    const AttentionSpec* const attention = attention_of(block);
    if (attention == nullptr) continue;
    const auto& input = spec.at<ProductSpec>(block.input);
    for (const RowRange& rows : {attention->q, attention->k, attention->v}) {
      if (!lies_in_a_module(input, rows)) refuse("queries, keys or values of several modules");
    }
    if (first == nullptr) first = attention;
    // The workload has one shape: scratch depends on the heads alone, not on scale, window and cap.
    const AttentionShape& shape = attention->shape;
    if (shape.heads != first->shape.heads || shape.kv_heads != first->shape.kv_heads ||
        shape.head_dim != first->shape.head_dim)
      refuse("attention of several shapes");
  }
}

void check_served(const DecoderSpec& spec, const DevicePlan& plan) {
  check_served(spec);
  if (plan.name() != "cuda") return;
  const auto refuse = [](std::string_view what) {
    throw DeviceError("cuda: a decoder's forward does not do {} there yet", what);
  };
  // embed() gives fp32 there, and a sum is fp32: neither is what a product or the next sum reads.
  if (spec.project_in || spec.project_out) refuse("projected embeddings");
  if (spec.norm_after_sum) refuse("norms behind the residual sums");
}

}  // namespace mezzo
